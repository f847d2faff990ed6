import re
import subprocess
import sys
from pathlib import Path

import pytest

GROWTH = Path(__file__).parents[2] / "benchmarks" / "growth.py"


@pytest.mark.slow
def test_peak_memory_of_a_large_image():
    """What a pixel adds: most of it is the map of segments, its PNG and the overlay, not what windows need."""
    peaks = {}
    for side in (1024, 3072):
        command = [sys.executable, GROWTH, "--large", str(side), "--consensus", "3"]
        printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        found = re.search(rf"{side}: .* ([0-9.]+) GB", printed)
        assert found, printed
        peaks[side] = float(found[1]) * 2**30
    assert (peaks[3072] - peaks[1024]) / (3072**2 - 1024**2) < 60, peaks
