"""From a trained model to a bundle: a SavedModel anyone can load, plus a card.

from millrace.export import export_keras

export_keras(model, name="digits", version="1", repository="bundles/",
             scale="0,255", channels="L", labels=[str(n) for n in range(10)])
"""

from millrace.export.facts import Facts
from millrace.export.graph_file import export_graph
from millrace.export.keras_bundle import export_keras
from millrace.export.predict import Check, Predict
from millrace.export.saved_model import export_saved_model

__all__ = ["Check", "Facts", "Predict", "export_graph", "export_keras", "export_saved_model"]
