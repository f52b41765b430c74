"""Releases of a vault: shared bases that an operator publishes, and which of them devices are to use.

Everything here is public to the vault's users, and signed. Each release and each announcement is a leaf of
the removal log: neither can be denied later, and no number comes twice, not even after a restore.

    releases = Releases(vault)
    release = releases.publish("smollm2-135m-q4", shared=Path("shared.safetensors"))
    releases.promote(release.version)
"""

from antefix_server.releases.releases import Published, Releases

__all__ = ["Published", "Releases"]
