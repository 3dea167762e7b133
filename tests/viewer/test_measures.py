"""What Prometheus reads."""

from viewer.measures import Measures


def test_counters_gauges_and_histograms_in_prometheus_text():
    measures = Measures()
    measures.count("queries")
    measures.count("queries", 2)
    measures.count("requests", route='/a"b\\', status="200")
    measures.set("rows", 12)
    for seconds in (0.0005, 0.02, 0.02, 99):
        measures.observe("search", seconds)
    lines = measures.text().splitlines()
    assert "mammoseek_queries_total 3" in lines
    assert 'mammoseek_requests_total{route="/a\\"b\\\\",status="200"} 1' in lines
    assert "mammoseek_rows 12" in lines
    assert 'mammoseek_search_seconds_bucket{le="0.001"} 1' in lines
    assert 'mammoseek_search_seconds_bucket{le="0.025"} 3' in lines
    assert 'mammoseek_search_seconds_bucket{le="10.0"} 3' in lines
    assert 'mammoseek_search_seconds_bucket{le="+Inf"} 4' in lines
    assert "mammoseek_search_seconds_count 4" in lines
    assert lines.count("# TYPE mammoseek_search_seconds histogram") == 1
