"""Who may come in: users by the names an operator gave them, invitations, and devices.

Everything here is sealed in the vault's database under the user's shred key (`vault.user_rows`), so that
`remove` leaves none of it. A name finds its user by an HMAC under a key of the vault.

    registry = Registry(vault)
    code = registry.add("ann").invitation.text()      # given to ann, once
    ...
    enrolled = registry.enrol(Invitation.parse(code), device, proof)
    session = registry.authenticate(enrolled.token)
"""

from antefix_server.registry.registry import (
    Added,
    Device,
    Enrolled,
    Node,
    Participant,
    Registry,
    Session,
    User,
)

__all__ = ["Added", "Device", "Enrolled", "Node", "Participant", "Registry", "Session", "User"]
