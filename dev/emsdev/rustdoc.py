"""The API documentation, which `make check` makes only to have its warnings."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from .base import REPO, sh, step
from .product import cargo_environment

# Of the compiler's arguments: where the dependencies are, and what is compiled.
_SHARED = ("-L", "--extern", "--cfg", "--check-cfg", "--edition")


def document() -> None:
    """As `cargo doc --no-deps` would, with every warning an error, but with the dependencies as the build has compiled
    them: Cargo would have all of them analysed a second time. The library has to be built."""
    with step("API documentation"):
        environment = cargo_environment()
        target = Path(environment["CARGO_TARGET_DIR"])
        arguments = (target / "library.arguments").read_text().split("\0")
        sh(
            [
                *("rustdoc", "src/lib.rs", "--crate-name", "ems_bots", "--crate-type", "lib"),
                *("--document-private-items", "-Dwarnings", "--out-dir", target / "doc"),
                *_shared(arguments),
            ],
            cwd=REPO,
            env={**environment, "CARGO_PKG_VERSION": "0"},
            timeout=900,
        )


def _shared(arguments: list[str]) -> Iterator[str]:
    """Those that rustdoc takes too, each with its value."""
    words = iter(arguments)
    for word in words:
        if word in _SHARED:
            yield from (word, next(words))
        elif word.startswith(_SHARED):
            yield word
