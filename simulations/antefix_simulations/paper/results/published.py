"""The paper's own figures, as printed in its ACL version (the arXiv preprint has others)."""

from __future__ import annotations

__all__ = ["E2E", "PARTS", "SOURCE", "SUMMARISE", "VARIANTS", "WEBNLG", "WORDS"]

SOURCE = "Li and Liang, ACL 2021"

E2E: dict[str, dict[str, float]] = {
    method: dict(zip(("BLEU", "NIST", "METEOR", "ROUGE-L", "CIDEr"), figures, strict=True))
    for method, figures in {
        "fine-tuning": (68.8, 8.71, 46.1, 71.1, 2.43),
        "top 2 layers": (68.1, 8.59, 46.0, 70.8, 2.41),
        "adapters 3 %": (68.9, 8.71, 46.1, 71.3, 2.47),
        "adapters 0.1 %": (66.3, 8.41, 45.0, 69.8, 2.40),
        "prefix": (70.3, 8.82, 46.3, 72.1, 2.46),
    }.items()
}
"""Table 2, GPT-2 medium, test."""

PARTS = ("seen", "unseen", "all")
"""Of WebNLG's test."""

WEBNLG: dict[str, dict[str, dict[str, float]]] = {
    method: {
        measure: dict(zip(PARTS, part, strict=True))
        for measure, part in zip(("BLEU", "METEOR", "TER"), figures, strict=True)
    }
    for method, figures in {
        "fine-tuning": ((64.7, 26.7, 45.7), (46, 30, 38), (0.33, 0.78, 0.54)),
        "top 2 layers": ((53.6, 18.9, 36.0), (38, 23, 31), (0.49, 0.99, 0.72)),
        "adapters 3 %": ((60.5, 47.9, 54.8), (43, 38, 41), (0.35, 0.46, 0.39)),
        "adapters 0.1 %": ((54.5, 45.1, 50.2), (39, 36, 38), (0.40, 0.46, 0.43)),
        "prefix": ((62.9, 45.3, 55.0), (44, 37, 41), (0.35, 0.51, 0.42)),
    }.items()
}
"""Table 2, GPT-2 medium, test. METEOR: 100 times the share that the paper prints. TER: lower is better."""

SUMMARISE: dict[str, dict[str, float]] = {
    method: dict(zip(("ROUGE-1", "ROUGE-2", "ROUGE-L"), figures, strict=True))
    for method, figures in {
        "fine-tuning": (45.14, 22.27, 37.25),
        "prefix 2 %": (43.80, 20.93, 36.05),
        "prefix 0.1 %": (42.92, 20.03, 35.05),
    }.items()
}
"""Table 3: XSUM, BART large. That set's articles may not be given away, so ours is another one."""

VARIANTS: dict[str, dict[str, float]] = {
    variant: dict(zip(("BLEU", "NIST", "METEOR", "ROUGE-L", "CIDEr"), figures, strict=True))
    for variant, figures in {
        "prefix, MLP": (70.3, 8.82, 46.3, 72.1, 2.46),
        "embedding-only 1": (48.1, 3.33, 32.1, 60.2, 1.10),
        "embedding-only 10": (62.2, 6.70, 38.6, 66.4, 1.75),
        "embedding-only 20": (61.9, 7.11, 39.3, 65.6, 1.85),
        "infix 1": (67.9, 8.63, 45.8, 69.4, 2.42),
        "infix 10": (67.2, 8.48, 45.8, 69.9, 2.40),
        "infix 20": (66.7, 8.47, 45.8, 70.0, 2.42),
    }.items()
}
"""Table 5, E2E, GPT-2 medium."""

WORDS = ("table-to-text:", "summarize", "active", "keep", "beautiful", "divide", "elephant", "banana")
"""Section 7.4 and figure 5, whose points are printed nowhere: random is low, any word much better, words of
the task slightly best."""
