"""Name the cars on a handful of test pictures, and show what they really are."""

from __future__ import annotations

import sys
from pathlib import Path

import carspotter
from carspotter.data import PictureReader, open_data_set

PICTURES = 6


def main() -> None:
    test = open_data_set(Path(sys.argv[1])).split("test")
    chosen = test[:: len(test) // PICTURES][:PICTURES]
    reader = PictureReader()
    spotter = carspotter.load()
    found = spotter.identify_many(reader.read(picture) for picture in chosen)
    for picture, result in zip(chosen, found, strict=True):
        assert result.answer is not None, result.error
        answer, best = result.answer, result.candidates[0]
        mark = "right" if best.label == picture.label else "wrong"
        print(f"{picture.key}")
        print(f"  is    {picture.label}")
        print(f"  says  {answer.label} ({answer.level}, {100 * answer.confidence:.0f} %)")
        print(f"  best  {best.label} ({100 * best.confidence:.0f} %): {mark}")
    print("\nYour own photo: make demo PHOTO=some.jpg")


if __name__ == "__main__":
    main()
