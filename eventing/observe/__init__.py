"""What the mesh tells about itself: logs and metrics. Importing this package loads neither."""
