"""From files to one HTML page: read a run's predictions, metrics and logs, write a report that needs no network.

``inputs`` says which files belong together, ``tables``, ``curves`` and ``gallery`` turn them into plain values,
``charts`` computes geometry, and the templates draw. Text reaches the page through jinja2's autoescape, and the
gallery, which a script draws, as text nodes. Adding a section is one module that returns values, one template, and one
line in ``build``.
"""
