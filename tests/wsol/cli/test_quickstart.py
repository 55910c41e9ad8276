"""The quickstart as a new user starts it."""

import csv
import json

import pytest

from tests.helpers.commands import tool


@pytest.mark.slow
def test_the_quickstart_convinces(tmp_path):
    """Its networks know the birds, its maps are far above the centred box, those of PGD and ART
    hold still, and ART's term falls."""
    output = tmp_path / "quickstart"
    status, _, error = tool("quickstart.py", "--output", output)
    assert status == 0, error
    assert len(list((output / "boxes" / "overlays").iterdir())) == 10
    assert (output / "report.html").is_file()
    assert sum(file.stat().st_size for file in output.rglob("*")) < 60e6
    kept = {}
    for run in ("standard", "pgd", "art"):
        metrics = json.loads((output / run / "metrics.json").read_text())
        assert metrics["top1_accuracy"] > 0.9
        rows = {r["heatmap"]: r for r in metrics["localization"] if r["policy"] == "val"}
        assert rows["gradient"]["gt_known_loc"] > rows["centred box"]["gt_known_loc"] + 0.3
        assert rows["refined gradient"]["gt_known_loc"] > 0.75
        (attack,) = metrics["robustness"]["maps"]
        kept[run] = attack["measures"]["top_k_intersection"]["interval"]
    assert min(kept["pgd"][0], kept["art"][0]) > kept["standard"][1]
    with open(output / "art" / "log.csv") as file:
        *_, last = csv.DictReader(file)
    assert float(last["val_attribution"]) < 0.67 < float(last["val_attribution_untrained"])
