"""`python supervised.py SETTINGS-AS-JSON`: the supervisor with idle roles, in the shape of the real ones."""

import sys
from dataclasses import replace

from eventing.runtime import supervisor
from eventing.runtime.process import Role
from eventing.runtime.settings import UpSettings


def idle(settings: UpSettings) -> tuple[Role, ...]:
    return tuple(replace(role, entry="roles:Idle") for role in supervisor.roles_of(settings))


sys.exit(supervisor.main(sys.argv[1:], idle))
