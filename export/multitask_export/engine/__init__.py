"""`python -m multitask_export engine`: the FP16 graph of an artifact → a TensorRT plan for one GPU.

Run it inside the Triton container, on the GPU that will serve: a plan belongs to one TensorRT
version and one kind of GPU. It builds with trtexec, checks which precision the products run in,
compares the answers with the FP32 graph and only then writes

    <repository>/multitask_onnx/<version>/model_sm<capability>.plan and engine.json
    <repository>/{multitask_onnx,multitask}/configs/tensorrt-plan.pbtxt

which `--model-config-name=tensorrt-plan` serves. Plans for several kinds of GPU lie side by side.

NOT YET RUN ON A GPU: the options and file formats of trtexec were read in its documentation and
source (TensorRT 10 and 11), and the tests use a stand-in that speaks them.
"""

from multitask_export.engine.command import add_arguments, run

__all__ = ["add_arguments", "run"]
