"""`python supervised.py SETTINGS-AS-JSON`: the supervisor with idle roles, in the shape of the real ones."""

import sys
from dataclasses import replace

from eventing.runtime import supervisor

sys.exit(supervisor.main(sys.argv[1:], tuple(replace(role, entry="roles:Idle") for role in supervisor.ROLES)))
