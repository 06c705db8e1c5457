"""The local cluster with this checkout's operator and console on it."""

from __future__ import annotations

from . import cluster, console, image, prepare, product


def bring_up() -> str:
    """Bring up everything that the bots of a tenant need. Returns the image's name."""
    with prepare.beside():
        program = product.build()
    prepare.everything()
    cluster.up()
    name = image.ensure(program)
    console.prepare()
    product.install(name)
    console.connect()
    return name
