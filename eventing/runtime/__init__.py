"""What runs where: settings, the data directory, the supervisor and the roles that are its children.

The supervisor's modules import next to nothing; what a role needs is imported by the child that plays it.
"""
