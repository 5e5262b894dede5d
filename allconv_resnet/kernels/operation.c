/* The operation AllconvFilterGradient of TensorFlow, which calls `filter_gradient`.

It is registered through TensorFlow's C API when `tf.load_op_library` loads this library. The functions of the API are
looked up in the TensorFlow that has been imported, so that the package can be built where there is no TensorFlow. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "filter_gradient.h"

enum { UINT8 = 4, BFLOAT16 = 14, INVALID_ARGUMENT = 3 }; /* of TF_DataType and TF_Code */

typedef struct TF_Status TF_Status;
typedef struct TF_Tensor TF_Tensor;
typedef struct TF_OpKernelContext TF_OpKernelContext;
typedef struct TF_OpKernelConstruction TF_OpKernelConstruction;
typedef struct TF_ShapeInferenceContext TF_ShapeInferenceContext;
typedef struct {
    size_t struct_size;
    unsigned char on_host;
} AllocatorAttributes;
typedef void *(*Create)(TF_OpKernelConstruction *);
typedef void (*Compute)(void *, TF_OpKernelContext *);
typedef void (*Delete)(void *);
typedef void (*Infer)(TF_ShapeInferenceContext *, TF_Status *);

/* Result, name and arguments of each function of tensorflow/c/{kernels,ops,tf_status,tf_tensor}.h that is used. */
#define FUNCTIONS(F)                                                                                   \
    F(TF_Status *, TF_NewStatus, (void))                                                               \
    F(void, TF_DeleteStatus, (TF_Status *))                                                            \
    F(int, TF_GetCode, (const TF_Status *))                                                            \
    F(void, TF_SetStatus, (TF_Status *, int, const char *))                                            \
    F(void, TF_GetInput, (TF_OpKernelContext *, int, TF_Tensor **, TF_Status *))                       \
    F(TF_Tensor *, TF_AllocateOutput,                                                                  \
      (TF_OpKernelContext *, int, int, const int64_t *, int, size_t, TF_Status *))                     \
    F(TF_Tensor *, TF_AllocateTemp,                                                                    \
      (TF_OpKernelContext *, int, const int64_t *, int, const AllocatorAttributes *, TF_Status *))     \
    F(void, TF_OpKernelContext_Failure, (TF_OpKernelContext *, TF_Status *))                           \
    F(void, TF_OpKernelConstruction_GetAttrInt32,                                                      \
      (TF_OpKernelConstruction *, const char *, int32_t *, TF_Status *))                               \
    F(void, TF_OpKernelConstruction_Failure, (TF_OpKernelConstruction *, TF_Status *))                 \
    F(void *, TF_TensorData, (const TF_Tensor *))                                                      \
    F(int, TF_NumDims, (const TF_Tensor *))                                                            \
    F(int64_t, TF_Dim, (const TF_Tensor *, int))                                                       \
    F(void, TF_DeleteTensor, (TF_Tensor *))                                                            \
    F(void *, TF_NewOpDefinitionBuilder, (const char *))                                               \
    F(void, TF_OpDefinitionBuilderAddInput, (void *, const char *))                                    \
    F(void, TF_OpDefinitionBuilderAddOutput, (void *, const char *))                                   \
    F(void, TF_OpDefinitionBuilderAddAttr, (void *, const char *))                                     \
    F(void, TF_OpDefinitionBuilderSetShapeInferenceFunction, (void *, Infer))                          \
    F(void, TF_RegisterOpDefinition, (void *, TF_Status *))                                            \
    F(void, TF_ShapeInferenceContextSetUnknownShape, (TF_ShapeInferenceContext *, TF_Status *))        \
    F(void *, TF_NewKernelBuilder, (const char *, const char *, Create, Compute, Delete))              \
    F(void, TF_RegisterKernelBuilder, (const char *, void *, TF_Status *))

#define DECLARE(result, name, arguments) static result(*name) arguments;
FUNCTIONS(DECLARE)

static int find_functions(void) {
    void *tensorflow = dlopen("libtensorflow_framework.so.2", RTLD_LAZY | RTLD_NOLOAD);
    if (!tensorflow) return 0;
#define FIND(result, name, arguments) \
    if (!(name = (result(*) arguments)dlsym(tensorflow, #name))) return 0;
    FUNCTIONS(FIND)
    return 1;
}

typedef struct {
    int32_t threads;
} Kernel;

static void *create(TF_OpKernelConstruction *construction) {
    Kernel *kernel = calloc(1, sizeof *kernel);
    TF_Status *status = TF_NewStatus();
    TF_OpKernelConstruction_GetAttrInt32(construction, "threads", &kernel->threads, status);
    if (TF_GetCode(status)) TF_OpKernelConstruction_Failure(construction, status);
    TF_DeleteStatus(status);
    return kernel;
}

static void compute(void *kernel, TF_OpKernelContext *context) {
    TF_Status *status = TF_NewStatus();
    TF_Tensor *x = NULL, *dy = NULL, *taps = NULL, *scratch = NULL;
    TF_GetInput(context, 0, &x, status);
    if (!TF_GetCode(status)) TF_GetInput(context, 1, &dy, status);
    if (TF_GetCode(status)) goto end;
    int fits = TF_NumDims(x) == 4 && TF_NumDims(dy) == 4;
    for (int i = 0; fits && i < 4; i++) fits = TF_Dim(x, i) > 0 && TF_Dim(dy, i) > 0;
    for (int i = 0; fits && i < 3; i++) fits = TF_Dim(x, i) == TF_Dim(dy, i);
    if (!fits) {
        TF_SetStatus(status, INVALID_ARGUMENT, "x and dy must have shapes [n, h, w, c] and [n, h, w, k], not empty.");
        goto end;
    }
    const long images = TF_Dim(x, 0), height = TF_Dim(x, 1), width = TF_Dim(x, 2);
    const long channels = TF_Dim(x, 3), filters = TF_Dim(dy, 3), threads = ((Kernel *)kernel)->threads;
    const int64_t sizes[4] = {3, 3, channels, filters};
    taps = TF_AllocateOutput(context, 0, BFLOAT16, sizes, 4, 9 * channels * filters * sizeof(bfloat16), status);
    if (TF_GetCode(status)) goto end;
    const AllocatorAttributes attributes = {sizeof attributes, 1};
    const int64_t bytes = filter_gradient_scratch(images, height, width, channels, filters, threads);
    scratch = TF_AllocateTemp(context, UINT8, &bytes, 1, &attributes, status); /* TensorFlow aligns it to 64 bytes */
    if (TF_GetCode(status)) goto end;
    filter_gradient(TF_TensorData(x), TF_TensorData(dy), images, height, width, channels, filters, threads,
                    TF_TensorData(scratch), TF_TensorData(taps));
end:
    if (TF_GetCode(status)) TF_OpKernelContext_Failure(context, status);
    if (x) TF_DeleteTensor(x);
    if (dy) TF_DeleteTensor(dy);
    if (taps) TF_DeleteTensor(taps);
    if (scratch) TF_DeleteTensor(scratch);
    TF_DeleteStatus(status);
}

static void infer_shape(TF_ShapeInferenceContext *context, TF_Status *status) {
    TF_ShapeInferenceContextSetUnknownShape(context, status); /* Python sets it */
}

__attribute__((constructor)) static void register_operation(void) {
    if (!filter_gradient_compiled() || !find_functions()) return;
    TF_Status *status = TF_NewStatus();
    void *operation = TF_NewOpDefinitionBuilder("AllconvFilterGradient");
    TF_OpDefinitionBuilderAddInput(operation, "x: bfloat16");
    TF_OpDefinitionBuilderAddInput(operation, "dy: bfloat16");
    TF_OpDefinitionBuilderAddOutput(operation, "taps: bfloat16");
    TF_OpDefinitionBuilderAddAttr(operation, "threads: int >= 1");
    TF_OpDefinitionBuilderSetShapeInferenceFunction(operation, infer_shape);
    TF_RegisterOpDefinition(operation, status);
    void *kernel = TF_NewKernelBuilder("AllconvFilterGradient", "CPU", create, compute, free);
    if (!TF_GetCode(status)) TF_RegisterKernelBuilder("AllconvFilterGradient", kernel, status);
    TF_DeleteStatus(status);
}
