"""From recorded runs to figures and tables: drawing, claims, the paper's printed curves, captions, the page.

What belongs here: code that draws, judges and describes runs. Nothing that trains, and no torch.

Public: ``app.make`` (a figure), ``app.make_table``, ``app.figures`` (those of a composed configuration),
``reading.load`` (the runs), ``claims.judge``, ``drawing.draw``, ``page.page``.
"""
