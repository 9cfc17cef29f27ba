"""C-FIND (PS3.4 Annex C, Study Root): which instances of a series a PACS shows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pydicom.dataset import Dataset
from pynetdicom import build_context
from pynetdicom.association import Association
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind  # type: ignore[attr-defined]

from recon_node.core.errors import PacsMisconfigured, PacsUnreachable, where_it_failed
from recon_node.delivery.instance import Instance
from recon_node.delivery.outcome import PacsBusy
from recon_node.delivery.peers.association import NoContext, Peer, drop, open_association, release

_LISTED = 50
"""Instances that are asked for by their UIDs; of more, the whole series is asked for."""
_MOST_ANSWERS = 100_000
_PENDING = (0xFF00, 0xFF01)


def by_series(instances: Iterable[Instance]) -> dict[tuple[str, str], list[str]]:
    """SOP instance UIDs by study and series; what has neither cannot be asked for."""
    groups: dict[tuple[str, str], list[str]] = {}
    for instance in instances:
        if instance.study and instance.series:
            groups.setdefault((instance.study, instance.series), []).append(instance.uid)
    return groups


def find_instances(peer: Peer, instances: Sequence[Instance]) -> dict[str, bool] | None:
    """SOP instance UID to whether `peer` shows it.

    Returns
    -------
    dict or None
        None where it does not answer such questions from us.

    Raises
    ------
    DeliveryError
        As for `open_association`; or the answer broke off.
    """
    try:
        association = open_association(peer, [build_context(StudyRootQueryRetrieveInformationModelFind)])
    except NoContext:
        return None
    answer: dict[str, bool] = {}
    try:
        for (study, series), uids in by_series(instances).items():
            shown = _shown(association, peer, study, series, uids)
            if shown is None:
                return None
            answer.update({uid: uid in shown for uid in uids})
    finally:
        release(association)
    return answer


def _shown(
    association: Association, peer: Peer, study: str, series: str, uids: Sequence[str]
) -> set[str] | None:
    wanted = Dataset()
    wanted.QueryRetrieveLevel = "IMAGE"
    wanted.StudyInstanceUID, wanted.SeriesInstanceUID = study, series
    wanted.SOPInstanceUID = list(uids) if len(uids) <= _LISTED else ""
    try:
        return _collected(association, peer, wanted)
    except (PacsUnreachable, PacsMisconfigured):
        raise
    except Exception as error:
        drop(association)
        raise PacsUnreachable(
            f"{peer}: the question what it has failed ({where_it_failed(error)})"
        ) from error


def _collected(association: Association, peer: Peer, wanted: Dataset) -> set[str] | None:
    shown: set[str] = set()
    for count, (status, found) in enumerate(
        association.send_c_find(wanted, StudyRootQueryRetrieveInformationModelFind)
    ):
        code = status.get("Status")
        if code is None:
            raise PacsUnreachable(f"{peer}: no answer to the question what it has")
        if code == 0:
            return shown
        if code not in _PENDING:
            if code >> 8 == 0xA7:
                raise PacsBusy(f"{peer}: too busy to say what it has (status 0x{code:04X})")
            return None
        if count > _MOST_ANSWERS:
            raise PacsUnreachable(f"{peer}: more than {_MOST_ANSWERS} answers to the question what it has")
        if found is not None:
            shown.add(str(found.get("SOPInstanceUID", "")))
    raise PacsUnreachable(f"{peer}: the answer to the question what it has broke off")
