"""PEP 517 backend: setuptools, with a choice of the torch that the extension is built against.

An extension works only with the version of torch that it was built against. Under build isolation
pip would install the newest torch into a temporary environment and build against it, even if the
user has another version. This backend first looks in pip's own environment, which ``sysconfig``
still describes under isolation: if torch is there, it is added to the path of the build. Otherwise
the build requires torch, and the wheel requires the same version.
"""

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path
from typing import Any

from setuptools import build_meta

DEFAULT_TORCH = "torch==2.13.0"
# Dependencies of torch that torch.utils.cpp_extension imports in setup.py.
_TORCH_NEEDS = ["numpy"]


def _site_with_torch() -> str | None:
    """The site-packages folder with torch: this process's, or that of the environment of pip."""
    candidates = [*sys.path, sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    for folder in candidates:
        if folder and (Path(folder) / "torch" / "version.py").is_file():
            return folder
    return None


def _expose_torch() -> None:
    folder = _site_with_torch()
    if folder is not None and folder not in sys.path:
        sys.path.append(folder)  # last, so that the build's own setuptools has priority


def get_requires_for_build_wheel(config_settings: Any = None) -> list[str]:
    """The packages that pip installs before the build."""
    return [] if _site_with_torch() else [DEFAULT_TORCH, *_TORCH_NEEDS]


get_requires_for_build_editable = get_requires_for_build_wheel


def get_requires_for_build_sdist(config_settings: Any = None) -> list[str]:
    """As for a wheel, because an sdist runs setup.py, too."""
    return get_requires_for_build_wheel(config_settings)


def prepare_metadata_for_build_wheel(directory: str, config_settings: Any = None) -> str:
    """Writes the wheel's metadata."""
    _expose_torch()
    return build_meta.prepare_metadata_for_build_wheel(directory, config_settings)


def build_wheel(directory: str, config_settings: Any = None, metadata: str | None = None) -> str:
    """Builds the wheel."""
    _expose_torch()
    return build_meta.build_wheel(directory, config_settings, metadata)


def build_sdist(directory: str, config_settings: Any = None) -> str:
    """Builds the source distribution."""
    _expose_torch()
    return build_meta.build_sdist(directory, config_settings)


def prepare_metadata_for_build_editable(directory: str, config_settings: Any = None) -> str:
    """Writes the metadata of an editable install."""
    _expose_torch()
    return build_meta.prepare_metadata_for_build_editable(directory, config_settings)


def build_editable(directory: str, config_settings: Any = None, metadata: str | None = None) -> str:
    """Builds in place."""
    _expose_torch()
    return build_meta.build_editable(directory, config_settings, metadata)
