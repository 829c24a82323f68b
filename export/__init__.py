"""From a trained model to a bundle: a SavedModel anyone can load, plus a card.

from millrace.export import export_keras

export_keras(model, name="digits", version="1", repository="bundles/",
             scale="0,255", channels="L", labels=[str(n) for n in range(10)])
"""

from millrace.export.keras_bundle import export_keras

__all__ = ["export_keras"]
