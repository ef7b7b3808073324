"""The book in a course: chapters as assignments, in four formats, and figures for slides.

What is handed in is graded by ebmm.book.grading.

    python -m ebmm course OUT                                the chapters as they are
    python -m ebmm course --without-solutions OUT            an empty answer in the place of each solution
    python -m ebmm course --format gradescope OUT            the same, and an autograder to upload
    python -m ebmm course --format nbgrader OUT              sources of nbgrader, with the solutions marked
    python -m ebmm course --format otter OUT                 notebooks and tests for Otter-Grader
    python -m ebmm course --figures OUT                      every figure of the book, at the size of a slide

``--chapters 1 3`` takes some of them, ``--points FILE`` says what each exercise is worth, ``--seed N`` draws other
numbers for the exercises. Notebooks are run by nbclient, which comes with Jupyter; only what runs one asks for it.
"""

from ebmm.book.course.chapter import chapters
from ebmm.book.course.formats import export
from ebmm.book.course.points import read_points
from ebmm.book.course.slides import figures
from ebmm.book.course.wheels import wheelhouse

__all__ = ["chapters", "export", "figures", "read_points", "wheelhouse"]
