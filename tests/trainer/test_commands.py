from tests.trainer.conftest import Pipeline


def test_x(pipeline: Pipeline) -> None:
    assert pipeline.bundle.exists()
