"""The local web page: an image in, boxes, graph, scores and raw answer out, from one checkpoint or two side by side."""
