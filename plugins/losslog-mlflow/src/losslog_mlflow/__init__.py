"""MLflow for losslog. Importing this imports no mlflow."""

from losslog_mlflow.plugin import MlflowPlugin

__all__ = ["MlflowPlugin"]
