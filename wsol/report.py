"""A page of results: scores with their policies, and pictures of what the scores mean."""

import base64
import html
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from string import Template
from typing import Any

import cv2
import numpy as np
import torch

from robust_training.files import write_text
from robust_training.model import Classifier
from wsol.boxes import iou, largest_boxes, rescale
from wsol.data.cub import CUB200
from wsol.data.image import read_image
from wsol.drawing import PREDICTED, TRUE, blend, draw_boxes, threshold_curves
from wsol.errors import KINDS
from wsol.heatmap import HeatmapMethod
from wsol.robustness_tables import accuracy_curves, robustness_tables
from wsol.rows import HIT
from wsol.tables import MORE_HEADS, error_cells, heatmaps, more_cells, score_cells


@dataclass(frozen=True)
class Entry:
    """A scored model: what `evaluation.score` said of it, and the split that it was scored on."""

    model: Classifier
    methods: Mapping[str, HeatmapMethod]
    result: Mapping[str, Any]
    dataset: CUB200


_PAGE = Template("""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
:root { color-scheme: light dark; --line: #8884; --soft: #8881; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; } th, td { padding: .3rem .7rem; text-align: right;
  border-bottom: 1px solid var(--line); white-space: nowrap; }
th:nth-child(-n+2), td:nth-child(-n+2), .policy th:nth-child(3), .policy td:nth-child(3)
  { text-align: left; } .scroll { margin-bottom: 1.5rem; } tr.lead { background: var(--soft); }
.attacked td:nth-child(2) { white-space: normal; min-width: 22rem; }
.gallery th, .gallery td { text-align: center; padding: .3rem; }
.gallery img { width: 9rem; display: block;
  image-rendering: auto; border-radius: 4px; } .gallery small { display: block; }
img.curves { max-width: 100%; background: white; border-radius: 4px; }
.hit { color: #2a9d3a; } .miss { color: #d43a3a; }
i.box { display: inline-block; width: .8em; height: .8em; border: 2px solid; }
</style></head><body>
<h1>$title</h1>
<p>Percentages of $images test images, 95&nbsp;% intervals in brackets.</p>
<div class="scroll"><table class="policy"><thead><tr><th>model</th><th>heatmap</th>
<th>threshold policy</th>
<th>GT-known</th><th>Top-1 Loc</th><th>Top-5 Loc</th><th>accuracy</th></tr></thead>
<tbody>$rows</tbody></table></div>
<div class="scroll"><table><thead><tr><th>model</th><th>heatmap</th>$more_heads</tr></thead>
<tbody>$more</tbody></table></div>
<img class="curves" alt="GT-known against the heatmap threshold"
src="data:image/png;base64,$curves">
$robustness<h2>What the boxes are</h2>
<div class="scroll"><table class="policy">
<thead><tr><th>model</th><th>heatmap</th>$kinds</tr></thead><tbody>$errors</tbody></table></div>
<p>Every image of them, with its box: <code>images.csv</code> in the run's folder.</p>
<h2>The same test images under every model and map</h2>
<p><i class="box" style="border-color:$true"></i> true box,
<i class="box" style="border-color:$predicted"></i> box read off the heatmap of the true class
at the validation threshold; the number is their IoU, a hit from 0.5 on.</p>
<div class="scroll"><table class="gallery"><thead><tr><th>image</th>$columns</tr></thead>
<tbody>$pictures</tbody></table></div>
<h2>How it was scored</h2>
<p>$protocol</p>
</body></html>
""")


def write_report(
    file: str | os.PathLike, entries: Mapping[str, Entry], *, images: int = 12
) -> None:
    """Write one self-contained HTML file.

    Args:
        entries: Run name -> what was scored.
        images: How many test images to show, spread evenly.

    Raises:
        ValueError: the runs were scored on different images.
    """
    first = next(iter(entries.values()))
    dataset = first.dataset
    names = [example.name for example in dataset.examples]
    for run, entry in entries.items():
        if [example.name for example in entry.dataset.examples] != names:
            raise ValueError(f"{run} was scored on other images, so one report cannot hold both")
    chosen = np.linspace(0, len(dataset) - 1, min(images, len(dataset))).astype(int).tolist()
    columns = [
        (run, name)
        for run, entry in entries.items()
        for name in entry.methods
        if name != "centred box"
    ]
    page = _PAGE.substitute(
        title="Localization from image labels",
        rows="".join(_rows(run, entry.result) for run, entry in entries.items()),
        images=len(names),
        more_heads=_cells(MORE_HEADS, "th"),
        more="".join(
            f"<tr>{_cells([run, name, *more_cells(entry.result, name)])}</tr>"
            for run, entry in entries.items()
            for name in heatmaps(entry.result)
        ),
        kinds=_cells(("policy", *KINDS), "th"),
        errors="".join(
            f"<tr>{_cells([run, name, *error_cells(entry.result, name)])}</tr>"
            for run, entry in entries.items()
            for name in entry.result["headline"]
        ),
        protocol=html.escape(first.result["protocol"]),
        curves=base64.b64encode(
            threshold_curves({run: entry.result for run, entry in entries.items()})
        ).decode(),
        robustness=_robustness({run: entry.result for run, entry in entries.items()}),
        columns="".join(f"<th>{html.escape(r)}<br>{html.escape(n)}</th>" for r, n in columns),
        pictures="".join(_picture_row(entries, index, columns) for index in chosen),
        true="rgb" + str(TRUE),
        predicted="rgb" + str(PREDICTED),
    )
    write_text(file, page)


def _rows(run: str, result: Mapping[str, Any]) -> str:
    rows = ""
    for row in result["localization"]:
        lead = ' class="lead"' if row["heatmap"] == "gradient" and row["policy"] == "val" else ""
        cells = [run, row["heatmap"], *score_cells(row, result["top1_accuracy"])]
        rows += f"<tr{lead}>{_cells(cells)}</tr>"
    return rows


def _cells(texts: Iterable[str], tag: str = "td") -> str:
    return "".join(f"<{tag}>{html.escape(text)}</{tag}>" for text in texts)


def _robustness(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Tables and curves under attack, where a run has any."""
    curves = accuracy_curves(results)
    tables = [
        '<div class="scroll"><table class="attacked"><thead><tr>'
        f"{_cells(heads, 'th')}</tr></thead><tbody>"
        f"{''.join(f'<tr>{_cells(row)}</tr>' for row in rows)}</tbody></table></div>"
        for heads, rows, _ in robustness_tables(results)
        if rows
    ]
    if curves is not None:
        data = base64.b64encode(curves).decode()
        tables.append(
            f'<img class="curves" alt="accuracy under attack" src="data:image/png;base64,{data}">'
        )
    return "<h2>Under attack</h2>" + "".join(tables) if tables else ""


def _picture_row(
    entries: Mapping[str, Entry], index: int, columns: Sequence[tuple[str, str]]
) -> str:
    dataset = next(iter(entries.values())).dataset
    example = dataset.examples[index]
    pixels = read_image(example.path)
    title = html.escape(dataset.classes[example.label])
    cells = f"<td>{_img(draw_boxes(pixels, [(example.box, TRUE)]))}<small>{title}</small></td>"
    for run, name in columns:
        entry = entries[run]
        item, device = entry.dataset[index], next(entry.model.parameters()).device
        image, label = item["image"][None].to(device), torch.tensor([item["label"]], device=device)
        heatmap = entry.methods[name](entry.model, image, label)[0]
        box = largest_boxes(heatmap, [_threshold(entry.result, name)])
        box = rescale(box, heatmap.shape[::-1], (pixels.shape[1], pixels.shape[0]))[0]
        overlap = float(iou(box, example.box))
        picture = draw_boxes(blend(pixels, heatmap), [(example.box, TRUE), (box, PREDICTED)])
        mark = "hit" if overlap >= HIT else "miss"
        shown = f"{np.floor(100 * overlap) / 100:.2f}"  # never up to a hit
        cells += f'<td>{_img(picture)}<small class="{mark}">{shown}</small></td>'
    return f"<tr>{cells}</tr>"


def _threshold(result: Mapping[str, Any], name: str) -> float:
    rows = [row for row in result["localization"] if row["heatmap"] == name]
    return next((row for row in rows if row["policy"] == "val"), rows[0])["threshold"]


def _img(pixels: np.ndarray, *, side: int = 288) -> str:
    scale = side / max(pixels.shape[:2])
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    picture = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=interpolation)
    encoded = cv2.imencode(".jpg", picture[..., ::-1])[1].tobytes()
    data = base64.b64encode(encoded).decode()
    return f'<img alt="" src="data:image/jpeg;base64,{data}">'
