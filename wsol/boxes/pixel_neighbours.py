"""Tables for adding a pixel to a set. The index of a row has one bit for each neighbour."""

import numpy as np

# row and column offsets in a closed walk around the pixel; consecutive neighbours touch
RING = ((-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1))


def touched(*, diagonal: bool) -> np.ndarray:
    """int8 (256,5): one neighbour from each component that a new pixel touches, then -1.

    Bit k of the row's index is 1 if pixel k of RING is in the set. Neighbours that are connected
    around the new pixel already belong to one component, so there are at most four components.

    Args:
        diagonal: True for 8-connectivity, False for 4-connectivity.
    """

    def connected(a: int, b: int) -> bool:
        distances = [abs(p - q) for p, q in zip(RING[a], RING[b], strict=True)]
        return max(distances) <= 1 if diagonal else sum(distances) <= 1

    table = np.full((256, 5), -1, np.int8)
    for present in range(256):
        group = {k: {k} for k in range(8) if present >> k & 1}
        for a in group:
            for b in group:
                if connected(a, b) and group[a] is not group[b]:
                    group[a] |= group[b]
                    for member in group[b]:
                        group[member] = group[a]
        # neighbours with a common edge have odd numbers in RING
        adjacent = [k for k in group if diagonal or k % 2]
        chosen = {id(group[k]): k for k in adjacent}
        table[present, : len(chosen)] = list(chosen.values())
    return table


def half_squares() -> np.ndarray:
    """int32 (256,): the number of half squares that a new pixel adds to the contour area.

    A square between four pixel centres counts 1/2 with three pixels, and 1 with four.
    """
    table = np.zeros(256, np.int32)
    for present in range(256):
        for corner in (0, 2, 4, 6):
            square = (corner, (corner - 1) % 8, (corner + 1) % 8)
            table[present] += sum(present >> k & 1 for k in square) >= 2
    return table
