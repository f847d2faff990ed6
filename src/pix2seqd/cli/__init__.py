"""The command line: `main`, a module for each command, and what several commands share.

Shared: `options`; `recipe` (settings of a training); `scoring`; `segmenting` (many files in this process); `workers`
(in several processes) and `ray_engine` (on a Ray cluster).
"""
