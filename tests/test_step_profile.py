"""benchmarks/step_profile.py groups the kernels of a GPU by the names that cuDNN and XLA give them."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
KERNELS = {
    "sm90_xmma_wgrad_indexed_implicit_gemm_bf16bf16_bf16f32_f32_nhwckrsc_nhwc_tilesize128x64x64": 4.0,
    "sm90_xmma_dgrad_implicit_gemm_bf16bf16_bf16f32_f32_nhwckrsc_nhwc_tilesize256x64x32": 3.0,
    "sm90_xmma_fprop_implicit_gemm_bf16bf16_bf16f32_f32_nhwckrsc_nhwc_tilesize128x128x64": 2.0,
    "void cudnn::ops::nchwToNhwcKernel<__nv_bfloat16>": 0.75,
    "input_transpose_fusion_15": 0.25,
    "loop_convert_fusion": 0.5,
    "gemm_fusion_dot_1": 0.1,
}


def test_kernels_are_grouped_by_name():
    code = f"import json, step_profile; print(json.dumps(step_profile.grouped({KERNELS})))"
    environment = {**os.environ, "KERAS_BACKEND": "jax", "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'benchmarks'}"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "filter gradients": 4.0,
        "input gradients": 3.0,
        "forward passes": 2.0,
        "copies and changes of the layout": 1.0,
        "element-wise operations, reductions and the optimizer": 0.5,
        "other convolutions and products": 0.1,
    }
