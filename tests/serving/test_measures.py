from cxr.inference.verdict import Verdict
from cxr.serving.batching import Timing
from cxr.serving.measures import Measures


def test_what_is_counted_is_told():
    measures = Measures()
    measures.count_request("/v1/predict", 200, 0.02)
    measures.count_batch(Timing([0.001, 0.002, 0.003], 0.5))
    measures.count_verdict(Verdict("a", {"a": 1.0}, {}, True, ("inverted",)))
    measures.waiting.inc(3)
    lines = measures.to_text().decode().splitlines()
    for line in (
        'cxr_requests_total{route="/v1/predict",status="200"} 1.0',
        "cxr_queue_seconds_count 3.0",
        "cxr_predict_seconds_sum 0.5",
        'cxr_batch_size_bucket{le="2.0"} 0.0',
        'cxr_batch_size_bucket{le="4.0"} 1.0',
        'cxr_images_total{status="ok"} 1.0',
        "cxr_abstentions_total 1.0",
        'cxr_warnings_total{code="inverted"} 1.0',
        "cxr_waiting_images 3.0",
    ):
        assert line in lines


def test_applications_count_apart():
    one, other = Measures(), Measures()
    one.abstentions.inc()
    assert b"cxr_abstentions_total 0.0" in other.to_text()
