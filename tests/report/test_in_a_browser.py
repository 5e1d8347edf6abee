"""The report in a headless browser: it works there, loads nothing, and can be used without a mouse."""

from __future__ import annotations


def test_the_page_opens_without_errors_or_requests(visit, page, tmp_path):
    path = tmp_path / "report.html"
    path.write_text(page, encoding="utf-8")
    shown = visit(path.as_uri())
    assert shown.locator("article.card").count() == 12
