"""`/v1/predict`: one picture in, the best classes out."""

from __future__ import annotations

from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Depends, File, Form, UploadFile
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import Response

from millrace.core.model_ref import ModelRef
from millrace.producer.http.access import Caller, operator
from millrace.producer.http.backend import Backend
from millrace.producer.http.jobs import JSON, NO_STORE
from millrace.producer.http.problems import responses
from millrace.producer.waiting import LONGEST_PREDICTION_S

router = APIRouter(prefix="/v1", tags=["predict"])

_EXAMPLE = [{"label": "seven", "index": 7, "score": 0.98}]


class PredictedBy(BaseModel):
    name: str = Field(examples=["digits"])
    version: str | None = Field(examples=["1"])
    digest: str | None


class PredictionModel(BaseModel):
    """What the model says of the picture, best first."""

    model: PredictedBy
    predictions: list[dict[str, Any]] = Field(examples=[_EXAMPLE])
    took_s: float = Field(examples=[0.21])


@router.post(
    "/predict",
    operation_id="predictPicture",
    summary="Predict one picture",
    response_model=PredictionModel,
    responses=responses(400, 404, 408, 413, 422, 504),
)
async def predict(
    request: Request,
    _: Annotated[Caller, Depends(operator)],
    picture: Annotated[UploadFile, File(description="Any format that workers read.")],
    model: Annotated[
        str, Form(max_length=160, description="NAME or NAME:VERSION.", examples=["digits"])
    ],
    top_k: Annotated[
        int | None, Form(ge=1, le=10_000, description="Classes.", examples=[3])
    ] = None,
    timeout_s: Annotated[
        float | None,
        Form(
            ge=0.1,
            le=LONGEST_PREDICTION_S,
            description="Longest wait; the server's own, by default.",
            examples=[10],
        ),
    ] = None,
) -> Response:
    """The workers' answer to one picture, ahead of the images of jobs that wait. It is neither kept
    nor listed. A picture that cannot be read is a problem with its `stage` and `code`."""
    backend: Backend = request.app.state.backend
    backend.predictions.refuse_crowd()  # before a picture is read
    longest = backend.settings.predict_timeout_s
    answer = await backend.predictions.predict(
        await picture.read(), ModelRef.parse(model), top_k, min(timeout_s or longest, longest)
    )
    known = {name: answer.model[name] for name in ("name", "version", "digest")}
    body = {
        "model": known,
        "predictions": answer.predictions,
        "took_s": round(answer.took_s, 4),
    }
    return Response(orjson.dumps(body), headers=NO_STORE, media_type=JSON)
