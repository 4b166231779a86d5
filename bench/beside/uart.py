"""Prints a file on a raw tty 16 bytes at a time, as a UART's FIFO gives them: a writer for ``bench/console.py``."""

from __future__ import annotations

import os
import sys
import time
import tty
from pathlib import Path

FIFO = 16


def main() -> None:
    path, baud = Path(sys.argv[1]), int(sys.argv[2])
    data = path.read_bytes()
    tty.setraw(1)
    began = time.perf_counter()
    for start in range(0, len(data), FIFO):
        if baud:  # ten bits a byte
            time.sleep(max(0.0, began + start * 10 / baud - time.perf_counter()))
        os.write(1, data[start : start + FIFO])


if __name__ == "__main__":
    main()
