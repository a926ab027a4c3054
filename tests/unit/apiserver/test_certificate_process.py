"""Certificates are made by a process of its own, which is heard when it cannot."""

import subprocess
import sys
from pathlib import Path

PROBE = """
import asyncio, sys
from pathlib import Path
from eventing.apiserver.pki import certificates_for
from eventing.errors import StartError
try:
    paths = asyncio.run(certificates_for(Path(sys.argv[1]), ["localhost", "127.0.0.1"]))
except StartError as error:
    print(f"StartError: {error}")
else:
    print(sorted(path.name for path in Path(sys.argv[1]).iterdir()), paths.server_cert.exists())
print("cryptography" in sys.modules)
"""


def made(pki: Path) -> list[str]:
    done = subprocess.run([sys.executable, "-c", PROBE, str(pki)], capture_output=True, text=True, timeout=50, check=True)
    return done.stdout.splitlines()


def test_the_files_are_made_and_the_code_stays_outside(tmp_path: Path) -> None:
    assert made(tmp_path / "pki") == ["['ca.crt', 'ca.key', 'server.crt', 'server.key'] True", "False"]
    before = (tmp_path / "pki" / "server.crt").read_bytes()
    assert made(tmp_path / "pki")[1] == "False"
    assert (tmp_path / "pki" / "server.crt").read_bytes() == before


def test_why_they_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "pki").write_text("a file in the way")
    told, _ = made(tmp_path / "pki")
    assert told.startswith(f"StartError: the certificates in {tmp_path / 'pki'} cannot be made: ")
    assert "FileExistsError" in told
