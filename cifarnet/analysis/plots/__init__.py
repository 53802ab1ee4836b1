"""Numbers -> figures. Matplotlib lives here and nowhere else, a file a figure; each file is drawn by one call:

    plots.curves.draw(records_by_name, path)            metrics.jsonl of one run or several
    plots.confusion.draw({"": matrix}, classes, path, title)  counts [C, C] of each panel, by its name
    plots.grid.draw(...), plots.embedding.draw(...), plots.sphere.draw(...), plots.angles.draw(...), ...

Every `draw` writes PNG, SVG or PDF by the suffix of its path, atomically, and returns the path. No display is needed.
"""
