"""Machines to compile for: mesh, chips and advice, one short file each (`launch.compile_check`)."""
