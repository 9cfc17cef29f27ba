from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from recon_node.core.scan import Limit, PatientInfo, ScanHeader, StudyInfo


@pytest.fixture
def header() -> Callable[..., ScanHeader]:
    """A header with the given fields; birth and study are dates, phases the number of cardiac phases."""

    def make(
        *,
        birth: str | None = "1970-05-17",
        study: str | None = "2025-03-01",
        series: str | None = None,
        phases: int | None = None,
        **fields: Any,
    ) -> ScanHeader:
        values: dict[str, Any] = {
            "vendor": "SIEMENS",
            "model": "MAGNETOM Vida",
            "field_strength_t": 2.89362,
            "protocol": "cine_sax",
        }
        limits = {"phase": Limit(minimum=0, maximum=phases - 1, center=0)} if phases else {}
        return ScanHeader(
            encoded_matrix=(256, 128, 1),
            encoded_fov_mm=(600.0, 300.0, 8.0),
            recon_matrix=(128, 128, 1),
            recon_fov_mm=(300.0, 300.0, 8.0),
            limits=limits,
            patient=PatientInfo(birth_date=birth),
            study=StudyInfo(study_date=study, series_description=series),
            **(values | fields),
        )

    return make
