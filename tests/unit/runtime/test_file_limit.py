"""What a shell's limit of open files is does not bound the connections of the mesh."""

import subprocess
import sys


def test_a_process_of_the_mesh_may_open_as_many_files_as_the_system_lets_it() -> None:
    code = """
import resource
from eventing.runtime.child import raise_file_limit
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (128, hard))
raise_file_limit()
print(*resource.getrlimit(resource.RLIMIT_NOFILE), hard)
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    soft, now_hard, hard = map(int, done.stdout.split())
    assert now_hard == hard
    assert soft == min(hard if hard >= 0 else 65_536, 65_536)
