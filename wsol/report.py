"""A page of results: scores with their policies, and pictures of what the scores mean."""

import base64
import html
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any

import cv2
import numpy as np
import torch

from robust_training.model import Classifier
from wsol.boxes import largest_boxes, rescale
from wsol.data.cub import CUB200
from wsol.data.image import read_image
from wsol.drawing import PREDICTED, TRUE, blend, draw_boxes
from wsol.heatmap import HeatmapMethod
from wsol.metrics import best_iou

Entry = tuple[Classifier, Mapping[str, HeatmapMethod], Mapping[str, Any]]

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
th:nth-child(-n+3), td:nth-child(-n+3) { text-align: left; } tr.lead { background: var(--soft); }
.gallery td { text-align: center; padding: .3rem; } .gallery img { width: 9rem; display: block;
  image-rendering: auto; border-radius: 4px; } .gallery small { display: block; }
.hit { color: #2a9d3a; } .miss { color: #d43a3a; }
i.box { display: inline-block; width: .8em; height: .8em; border: 2px solid; }
</style></head><body>
<h1>$title</h1>
<div class="scroll"><table><thead><tr><th>model</th><th>heatmap</th><th>threshold policy</th>
<th>GT-known</th><th>Top-1 Loc</th><th>Top-5 Loc</th><th>accuracy</th></tr></thead>
<tbody>$rows</tbody></table></div>
<p>$protocol</p>
<h2>The same test images under every model and map</h2>
<p><i class="box" style="border-color:$true"></i> true box,
<i class="box" style="border-color:$predicted"></i> box read off the heatmap of the true class
at the validation threshold; the number is their IoU, a hit from 0.5 on.</p>
<div class="scroll"><table class="gallery"><thead><tr><th>image</th>$columns</tr></thead>
<tbody>$pictures</tbody></table></div>
</body></html>
""")


def write_report(
    file: str | os.PathLike, entries: Mapping[str, Entry], dataset: CUB200, *, images: int = 12
) -> None:
    """Write one self-contained HTML file.

    Args:
        entries: Run name -> (model, heatmap methods, result of `evaluation.score`).
        dataset: The scored split; the pictures are spread evenly over it.
    """
    chosen = np.linspace(0, len(dataset) - 1, min(images, len(dataset))).astype(int).tolist()
    columns = [
        (run, name)
        for run, (_, methods, _) in entries.items()
        for name in methods
        if name != "centred box"
    ]
    first = next(iter(entries.values()))[2]
    page = _PAGE.substitute(
        title="Localization from image labels",
        rows="".join(_rows(run, result) for run, (_, _, result) in entries.items()),
        protocol=html.escape(f"{first['images']} test images. {first['protocol']}"),
        columns="".join(f"<th>{html.escape(r)}<br>{html.escape(n)}</th>" for r, n in columns),
        pictures="".join(_picture_row(entries, dataset, index, columns) for index in chosen),
        true="rgb" + str(TRUE),
        predicted="rgb" + str(PREDICTED),
    )
    file = Path(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.name}.partial")
    partial.write_text(page, encoding="utf-8")
    os.replace(partial, file)


def _rows(run: str, result: Mapping[str, Any]) -> str:
    rows = ""
    for row in result["localization"]:
        shares = [row[key] for key in ("gt_known_loc", "top1_loc", "top5_loc")]
        cells = [run, row["heatmap"], f"{row['policy']} ({row['threshold']:.2f})"]
        cells += [f"{100 * share:.1f}" for share in [*shares, result["top1_accuracy"]]]
        lead = ' class="lead"' if row["heatmap"] == "gradient" and row["policy"] == "val" else ""
        rows += f"<tr{lead}>" + "".join(f"<td>{html.escape(c)}</td>" for c in cells) + "</tr>"
    return rows


def _picture_row(
    entries: Mapping[str, Entry], dataset: CUB200, index: int, columns: Sequence[tuple[str, str]]
) -> str:
    example, item = dataset.examples[index], dataset[index]
    pixels = read_image(example.path)
    image, label = item["image"][None], torch.tensor([item["label"]])
    title = html.escape(dataset.classes[example.label])
    cells = f"<td>{_img(draw_boxes(pixels, [(example.box, TRUE)]))}<small>{title}</small></td>"
    for run, name in columns:
        model, methods, result = entries[run]
        device = next(model.parameters()).device
        heatmap = methods[name](model, image.to(device), label.to(device))[0]
        box = largest_boxes(heatmap, [_threshold(result, name)])
        box = rescale(box, heatmap.shape[::-1], (pixels.shape[1], pixels.shape[0]))[0]
        iou = float(best_iou([box], [example.box])[0])
        picture = draw_boxes(blend(pixels, heatmap), [(example.box, TRUE), (box, PREDICTED)])
        mark = "hit" if iou >= 0.5 else "miss"
        cells += f'<td>{_img(picture)}<small class="{mark}">{iou:.2f}</small></td>'
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
