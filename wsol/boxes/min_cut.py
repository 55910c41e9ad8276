"""The minimum cut of an image: two regions with short boundaries along edges of colour.

The energy is grabCut's (Rother et al., SIGGRAPH 2004): a cost of each pixel, and a cost of each
pair of neighbours (8 around a pixel) in different regions, which is small across an edge. Its exact
minimum is found by the augmenting paths of Boykov and Kolmogorov (PAMI 2004). Their two search
trees, from the foreground and from the background, are kept from path to path.

All compiled code is in this one file, see `level_sets`. An image is flattened with a frame around
it, so each pixel has all neighbours, and the neighbours in the frame have no capacity.
"""

import numpy as np
from numba import njit

_FREE, _FOREGROUND, _BACKGROUND = 0, 1, 2  # trees
_TERMINAL, _ORPHAN, _NONE = 8, 9, 10  # parents that are not one of the 8 neighbours


def min_cut(pixels: np.ndarray, cost: np.ndarray, smoothness: float) -> np.ndarray:
    """The foreground with the smallest energy: bool (H,W).

    Args:
        pixels: (H,W,3), colours.
        cost: (H,W): the cost of a pixel in the background minus its cost in the foreground.
        smoothness: Cost of two neighbours of equal colour in different regions. Neighbours whose
            squared distance of colours is the image's mean d pay exp(-1/2) of it, and those with
            k d pay exp(-k/2). Diagonal neighbours pay 1 / sqrt(2) of it.
    """
    height, width = cost.shape
    colours = np.zeros((height + 2, width + 2, 3))
    colours[1:-1, 1:-1] = pixels
    terminal = np.zeros((height + 2, width + 2))
    terminal[1:-1, 1:-1] = cost
    capacity = _capacities(colours, float(smoothness))
    tree = _trees(capacity, terminal.ravel(), width + 2)
    return tree.reshape(terminal.shape)[1:-1, 1:-1] == _FOREGROUND


@njit(cache=True, nogil=True)
def _offsets(width):
    """Distances to the 8 neighbours. Neighbour 7 - k lies opposite of neighbour k."""
    return np.array([-width - 1, -width, -width + 1, -1, 1, width - 1, width, width + 1])


@njit(cache=True, nogil=True)
def _capacities(colours, smoothness):
    """Costs (H*W,8) of a pixel and each of its neighbours in different regions. `colours` (H,W,3)
    have a frame, whose pixels have no neighbours."""
    height, width, _ = colours.shape
    flat, offsets = colours.reshape(-1, 3), _offsets(width)
    inside = np.zeros((height, width), np.bool_)
    inside[1:-1, 1:-1] = True
    inside = inside.ravel()
    distance = np.zeros((height * width, 8))
    total, count = 0.0, 0
    for place in range(width, height * width - width):
        for k in range(4, 8):  # each pair once
            other = place + offsets[k]
            if inside[place] and inside[other]:
                squared = 0.0
                for channel in range(3):
                    squared += (flat[place, channel] - flat[other, channel]) ** 2
                distance[place, k] = squared
                total += squared
                count += 1
    beta = count / (2 * total) if total > 0 else 0.0
    capacity = np.zeros((height * width, 8))
    for place in range(width, height * width - width):
        for k in range(4, 8):
            other = place + offsets[k]
            if inside[place] and inside[other]:
                length = 1.0 if k in (4, 6) else np.sqrt(2.0)
                weight = smoothness * np.exp(-beta * distance[place, k]) / length
                capacity[place, k] = capacity[other, 7 - k] = weight
    return capacity


@njit(cache=True, nogil=True)
def _trees(capacity, terminal, width):
    """The tree of each pixel after the last augmenting path. Changes `capacity` and `terminal`, the
    residual capacities: those of `terminal` are positive from the source, negative to the sink."""
    count = len(terminal)
    offsets = _offsets(width)
    tree = np.zeros(count, np.int8)
    parent = np.full(count, _NONE, np.int8)
    stamp = np.zeros(count, np.int64)
    depth = np.zeros(count, np.int64)
    queue, queued = np.empty(count + 1, np.int64), np.zeros(count, np.bool_)
    orphans = np.empty(count, np.int64)
    first, last = 0, 0
    for pixel in range(count):
        if terminal[pixel] != 0:
            tree[pixel] = _FOREGROUND if terminal[pixel] > 0 else _BACKGROUND
            parent[pixel] = _TERMINAL
            depth[pixel] = 1
    for pixel in range(width, count - width):
        for offset in offsets:  # a pixel inside of its tree has nothing to find
            if tree[pixel] != _FREE and tree[pixel + offset] != tree[pixel]:
                queue[last] = pixel
                queued[pixel] = True
                last += 1
                break
    time, current = 0, -1
    while True:
        if current < 0 or tree[current] == _FREE:
            current = -1
            while first != last and current < 0:
                pixel = queue[first]
                first = (first + 1) % (count + 1)
                queued[pixel] = False
                if tree[pixel] != _FREE:
                    current = pixel
            if current < 0:
                return tree
        # growth: the pixel's tree takes free neighbours, until it touches the other tree
        own, start, way = tree[current], -1, -1
        for k in range(8):
            other = current + offsets[k]
            if _from_parent(capacity, own, other, current, 7 - k) <= 0:
                continue
            if tree[other] == _FREE:
                tree[other] = own
                parent[other] = 7 - k
                stamp[other], depth[other] = stamp[current], depth[current] + 1
                if not queued[other]:
                    queue[last] = other
                    last = (last + 1) % (count + 1)
                    queued[other] = True
            elif tree[other] != own:
                start, way = (current, k) if own == _FOREGROUND else (other, 7 - k)
                break
            elif stamp[other] <= stamp[current] and depth[other] > depth[current]:
                parent[other] = 7 - k
                stamp[other], depth[other] = stamp[current], depth[current] + 1
        if start < 0:
            current = -1
            continue
        time += 1
        found = _augment(capacity, terminal, parent, orphans, offsets, start, way)
        while found > 0:
            found -= 1
            orphan = orphans[found]
            own, best, shortest = tree[orphan], _NONE, count
            for k in range(8):  # the neighbour of the same tree that is nearest to its root
                other = orphan + offsets[k]
                if tree[other] != own or _from_parent(capacity, own, orphan, other, k) <= 0:
                    continue
                length = _distance(parent, stamp, depth, offsets, other, time)
                if 0 <= length < shortest:
                    best, shortest = k, length
            parent[orphan] = best
            if best != _NONE:
                stamp[orphan], depth[orphan] = time, shortest + 1
                continue
            for k in range(8):
                other = orphan + offsets[k]
                if tree[other] != own:
                    continue
                if _from_parent(capacity, own, orphan, other, k) > 0 and not queued[other]:
                    queue[last] = other
                    last = (last + 1) % (count + 1)
                    queued[other] = True
                if parent[other] == 7 - k:
                    parent[other] = _ORPHAN
                    orphans[found] = other
                    found += 1
            tree[orphan] = _FREE


@njit(cache=True, nogil=True)
def _from_parent(capacity, tree, pixel, parent, k):
    """The residual capacity that lets `parent`, neighbour k of a pixel, hold it in its tree:
    towards the pixel in the tree of the source, and from the pixel in the tree of the sink."""
    return capacity[parent, 7 - k] if tree == _FOREGROUND else capacity[pixel, k]


@njit(cache=True, nogil=True)
def _augment(capacity, terminal, parent, orphans, offsets, start, way):
    """Sends the largest possible flow from the source through `start` and its neighbour `way` to
    the sink. Returns the number of new orphans."""
    end = start + offsets[way]
    flow = capacity[start, way]
    pixel = start
    while parent[pixel] != _TERMINAL:
        above = pixel + offsets[parent[pixel]]
        flow = min(flow, capacity[above, 7 - parent[pixel]])
        pixel = above
    flow = min(flow, terminal[pixel])
    pixel = end
    while parent[pixel] != _TERMINAL:
        flow = min(flow, capacity[pixel, parent[pixel]])
        pixel += offsets[parent[pixel]]
    flow = min(flow, -terminal[pixel])

    found = 0
    capacity[start, way] -= flow
    capacity[end, 7 - way] += flow
    pixel = start
    while parent[pixel] != _TERMINAL:
        k = parent[pixel]
        above = pixel + offsets[k]
        capacity[pixel, k] += flow
        capacity[above, 7 - k] -= flow
        if capacity[above, 7 - k] <= 0:
            parent[pixel] = _ORPHAN
            orphans[found] = pixel
            found += 1
        pixel = above
    terminal[pixel] -= flow
    if terminal[pixel] <= 0:
        parent[pixel] = _ORPHAN
        orphans[found] = pixel
        found += 1
    pixel = end
    while parent[pixel] != _TERMINAL:
        k = parent[pixel]
        above = pixel + offsets[k]
        capacity[above, 7 - k] += flow
        capacity[pixel, k] -= flow
        if capacity[pixel, k] <= 0:
            parent[pixel] = _ORPHAN
            orphans[found] = pixel
            found += 1
        pixel = above
    terminal[pixel] += flow
    if terminal[pixel] >= 0:
        parent[pixel] = _ORPHAN
        orphans[found] = pixel
        found += 1
    return found


@njit(cache=True, nogil=True)
def _distance(parent, stamp, depth, offsets, pixel, time):
    """Steps from a pixel to the root of its tree; -1 if an orphan lies between. The pixels on the
    way get this distance and the stamp `time`, so that later calls end there."""
    steps, place = 0, pixel
    while stamp[place] != time:
        k = parent[place]
        steps += 1
        if k == _TERMINAL:
            stamp[place], depth[place] = time, 1
            break
        if k >= _ORPHAN:
            return -1
        place += offsets[k]
    else:
        steps += depth[place]
    length, place = steps, pixel
    while stamp[place] != time:
        stamp[place], depth[place] = time, steps
        steps -= 1
        place += offsets[parent[place]]
    return length
