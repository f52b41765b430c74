"""The devices of one user, as an application changes them: a part of `PersonalModel`."""

from __future__ import annotations

from antefix_client.devices import device_changes as changes_module
from antefix_client.devices import link_request as request_module
from antefix_client.devices import linking
from antefix_client.profile.session import ProfileSession


class DeviceLinking:
    """Linking devices, and removing them.

    Attributes:
        session: the open profile.
    """

    session: ProfileSession

    @property
    def device(self) -> str:
        """This device's fingerprint, which a person compares on two screens: eight groups of four digits."""
        with self.session.locked() as profile:
            return profile.keys.device.public.fingerprint

    def link_request(self) -> bytes:
        """On a new device, with a profile of its own: its public keys, for `admit` on the old one."""
        with self.session.locked() as profile:
            return request_module.to_bytes(profile.keys.device.public)

    def admit(self, request: bytes, *, device: str) -> bytes:
        """On a device of yours: let a new one in; the welcome, for `join` there.

        The new device will read every version, and write ones that this device takes over.

        Args:
            request: from `link_request` on the new device, carried by anyone.
            device: the fingerprint on the new device's own screen, typed by a person. It is what keeps out
                whoever carries the request and would put his own keys into it.

        Raises:
            LinkRefused, InvalidArgument: nothing was changed.
            ProfileFull, ProfileUnwritable.
        """
        with self.session.locked() as profile:
            return linking.admit(profile, request, device)

    def join(self, welcome: bytes, *, device: str) -> None:
        """On the new device: become a device of the user who admitted it. Its texts stay, and stay its own.

        Args:
            welcome: from `admit`, carried by anyone.
            device: the fingerprint on the old device's own screen, typed by a person.

        Raises:
            LinkRefused, InvalidArgument: nothing was changed; this profile may have versions already.
            BaseChanged: the two devices have different bases.
            ProfileFull, ProfileUnwritable.
        """
        with self.session.locked() as profile:
            linking.join(profile, welcome, device)

    def devices(self) -> list[str]:
        """Fingerprints of the user's devices, as far as this one has heard; this one is one of them."""
        with self.session.locked() as profile:
            return [device.fingerprint for device in profile.keys.devices.devices]

    def remove_device(self, device: str) -> None:
        """Remove another device of this user.

        The user key is rotated: the removed device can open no version that is sealed from now on, and
        what it writes is refused. What it has, it keeps. Versions here are wrapped anew, their content stays.
        The others follow with `device_changes`; on a server use `Membership.remove_device`.

        Args:
            device: its fingerprint, as `devices` has it.

        Raises:
            LinkRefused, InvalidArgument: it is this one, or not on the list.
            ProfileFull, ProfileUnwritable: it is removed or not; the next opening finishes it.
        """
        with self.session.locked() as profile:
            changes_module.remove_device(profile, device)

    def device_changes(self) -> bytes:
        """What this device has changed in the list of devices, for `follow_devices` on the others.

        Empty where there is nothing, or where the server has it all. Nothing in it is private but who left.
        """
        with self.session.locked() as profile:
            return changes_module.pack(changes_module.pending(profile))

    def follow_devices(self, changes: bytes) -> None:
        """Take over what another device has changed in the list, admitting one or removing one.

        Args:
            changes: from `device_changes` there, carried by anyone; those that are known already do no harm.

        Raises:
            DeviceListRefused: not the next after what is known here, or not by a device on the list. Those
                before it are taken over.
            DeviceRemoved: this device was removed.
            ProfileFull, ProfileUnwritable.
        """
        with self.session.locked() as profile:
            changes_module.apply_all(profile, changes)
