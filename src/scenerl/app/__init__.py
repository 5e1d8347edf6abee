"""The local web page: an image in; boxes, graph, scores and raw answer out, from one checkpoint or two side by side.

Gradio makes the page. ``answer`` puts one request to one checkpoint, ``page`` lays out the inputs and the results,
``command`` serves them.
"""
