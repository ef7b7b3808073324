"""Grading what students hand in, with the judges of the exercises, in processes of its own.

Three processes take part. One, ``command`` and ``grader``, finds the notebooks, sets limits and writes marks. For each
notebook it starts a ``judge``, which knows the exercises, and the judge starts the process of the ``student``, which
runs the cells behind a ``fence``, without the judges, and then replies with plain data to what it is asked.
"""
