"""Draws `docs/pictures/before-after.svg`: what the real base writes before and after it learned from a user.

    python -m website.before_after          # some minutes; the same machine gives the same text

The user is one of the invented people of the shipped sample; the prompts are not among that user's texts.
"""

from __future__ import annotations

import html
import json
import textwrap
from importlib.resources import files
from pathlib import Path

from antefix import Example, FrozenBase, GenerationRequest, PrefixSpec, TrainingPlan, generate, train

PICTURE = Path(__file__).resolve().parent.parent / "docs" / "pictures" / "before-after.svg"
USER = "mira"
PROMPTS = (
    "Invite the team to lunch on Friday.",
    "Tell Ann that her parcel has arrived.",
    "Say that the train is late.",
)
TOKENS = 40
ABOUT = "SmolLM2-135M, 4-bit, before and after learning from forty notes of an invented person, Mira."
COLUMN, LINE, LETTERS = 420, 19, 52


def main() -> None:
    """Train, generate, draw."""
    sample = files("antefix_simulations") / "data/sample/writers.jsonl"
    rows = map(json.loads, sample.read_text("utf-8").splitlines())
    texts = [Example(row["completion"], row["prompt"] + "\n") for row in rows if row["user"] == USER]
    base, plan = FrozenBase.load("smollm2-135m-q4"), TrainingPlan(max_steps=60, learning_rate=2e-2)
    prefix = train(base, {USER: texts}, PrefixSpec(length=8), plan)[USER].prefix
    requests = [
        GenerationRequest(prompt=f"{prompt}\n", prefix=each, max_new_tokens=TOKENS)
        for prompt in PROMPTS
        for each in (None, prefix)
    ]
    replies = [each.text + " …" * (each.finish == "length") for each in generate(base, requests)]
    PICTURE.write_text(picture(replies), encoding="utf-8")


def picture(replies: list[str]) -> str:
    """Each prompt, and below it what followed: without a prefix on the left, with it on the right."""
    parts, top = [], 60
    for prompt, *pair in zip(PROMPTS, replies[::2], replies[1::2], strict=True):
        columns = [_lines(text) for text in pair]
        height = 18 + LINE * max(map(len, columns))
        parts.append(f'<text class="prompt" x="24" y="{top + 16}">{html.escape(prompt)}</text>')
        for kind, left, lines in zip(("before", "after"), (20, 40 + COLUMN), columns, strict=True):
            box = f'x="{left}" y="{top + 28}" width="{COLUMN}" height="{height}" rx="7"'
            parts.append(f'<rect class="{kind}" {box}/>')
            for number, line in enumerate(lines):
                place = f'x="{left + 14}" y="{top + 50 + LINE * number}"'
                parts.append(f'<text class="text" {place}>{html.escape(line)}</text>')
        top += height + 46
    frame = FRAME.replace("WIDTH", str(2 * COLUMN + 60)).replace("HEIGHT", str(top + 22))
    frame = frame.replace("RIGHT", str(COLUMN + 44)).replace("FOOT", str(top + 4)).replace("ABOUT", ABOUT)
    return frame.replace("ROWS", "\n".join(parts))


def _lines(text: str) -> list[str]:
    return [line for part in text.split("\n") for line in textwrap.wrap(part, LETTERS)]


FRAME = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 WIDTH HEIGHT" width="WIDTH" height="HEIGHT"
  role="img" aria-labelledby="about" font-size="14"
  font-family="system-ui, -apple-system, 'Segoe UI', 'Liberation Sans', sans-serif">
<!-- written by website/before_after.py -->
<title id="about">ABOUT</title>
<style>
.head { font-weight: 600; font-size: 16px; fill: #431407; }
.prompt { font-weight: 600; fill: #292524; }
.before { fill: #f5f5f4; stroke: #d6d3d1; }
.after { fill: #fde4d3; stroke: #c2410c; }
.text { fill: #292524; }
.note { fill: #57534e; font-size: 12.5px; }
</style>
<rect width="WIDTH" height="HEIGHT" rx="10" fill="#fff"/>
<text class="head" x="24" y="38">Before</text>
<text class="head" x="RIGHT" y="38">After: behind her private prefix</text>
ROWS
<text class="note" x="24" y="FOOT">ABOUT</text>
</svg>
"""

if __name__ == "__main__":
    main()
