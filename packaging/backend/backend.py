"""The build backend: setuptools', behind one question. Its own error without a compiler names neither gcc nor headers."""

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from setuptools import build_meta
from setuptools.build_meta import *  # noqa: F403  # the hooks that are not below


def check() -> None:
    """Ends the build, with what to install, when nothing can be compiled."""
    missing = []
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")[0]
    if not any(map(shutil.which, (compiler, "cc", "gcc", "clang"))):
        missing.append("a C compiler (gcc)")
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        missing.append(f"the headers of Python {sys.version_info.major}.{sys.version_info.minor}")
    if not has_openssl(compiler):
        missing.append("the headers of OpenSSL")
    if missing:
        sys.exit(
            f"mcserver is compiled here, and {' and '.join(missing)} can't be found.\n"
            "Debian, Ubuntu: apt-get install gcc libc6-dev libssl-dev python3-dev.  "
            "Fedora: dnf install gcc openssl-devel python3-devel.  Alpine: apk add gcc musl-dev openssl-dev python3-dev.\n"
            "Or install a wheel, which needs none of them: pip install --only-binary mcserver mcserver"
        )


def has_openssl(compiler: str) -> bool:
    """Whether openssl/ssl.h is where the compiler looks; without a compiler, where it usually is."""
    flags = shlex.split(f"{os.environ.get('CPPFLAGS', '')} {os.environ.get('CFLAGS', '')}")
    found = next(filter(None, map(shutil.which, (compiler, "cc", "gcc", "clang"))), None)
    if found is None:
        return Path("/usr/include/openssl/ssl.h").exists()
    source = "#include <openssl/ssl.h>\n"
    command = [found, *flags, "-E", "-x", "c", "-o", os.devnull, "-"]
    return subprocess.run(command, input=source, text=True, capture_output=True, check=False).returncode == 0


def build_wheel(wheel_directory: str, config_settings: Any = None, metadata_directory: str | None = None) -> str:
    check()
    return build_meta.build_wheel(wheel_directory, config_settings, metadata_directory)


def build_editable(wheel_directory: str, config_settings: Any = None, metadata_directory: str | None = None) -> str:
    check()
    return build_meta.build_editable(wheel_directory, config_settings, metadata_directory)
