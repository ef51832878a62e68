"""Knights and Knaves: seeded puzzles with exactly one solution, perturbed versions of them, worked solutions.

    logic.py      statements, their truth tables, who can be what
    reasoning.py  the way to the solution by cases
    words.py      puzzle, solution and answer in English
    puzzles.py    drawing puzzles and perturbing them; rows of source `knights`
"""
