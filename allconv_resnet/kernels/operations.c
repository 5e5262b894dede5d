/* The operations AllconvConvolution and AllconvFilterGradient of TensorFlow, which call the kernels.

They are registered through TensorFlow's C API when `tf.load_op_library` loads this library. The functions of the API are
looked up in the TensorFlow that has been imported, so that the package can be built where there is no TensorFlow. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "kernels.h"

#if HAVE_KERNELS

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
    F(void, TF_OpKernelConstruction_GetAttrBool,                                                       \
      (TF_OpKernelConstruction *, const char *, unsigned char *, TF_Status *))                         \
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
    int32_t threads, last;
    unsigned char transposed, amx;
} Attributes;

/* Returns whether Linux lets this process use the tiles of AMX. It is asked, and says no where there are none. */
static int may_use_tiles(void) {
    enum { REQUEST_PERMISSION = 0x1023, TILE_DATA = 18 }; /* ARCH_REQ_XCOMP_PERM and XFEATURE_XTILEDATA of Linux */
    return !syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA);
}

static void *create(TF_OpKernelConstruction *construction) {
    Attributes *attributes = calloc(1, sizeof *attributes);
    TF_Status *status = TF_NewStatus();
    TF_OpKernelConstruction_GetAttrInt32(construction, "threads", &attributes->threads, status);
    if (!TF_GetCode(status)) TF_OpKernelConstruction_GetAttrBool(construction, "amx", &attributes->amx, status);
    if (TF_GetCode(status)) TF_OpKernelConstruction_Failure(construction, status);
    TF_DeleteStatus(status);
    attributes->amx = attributes->amx && may_use_tiles();
    return attributes;
}

static void *create_convolution(TF_OpKernelConstruction *construction) {
    Attributes *attributes = create(construction);
    TF_Status *status = TF_NewStatus();
    TF_OpKernelConstruction_GetAttrBool(construction, "transposed", &attributes->transposed, status);
    if (!TF_GetCode(status))
        TF_OpKernelConstruction_GetAttrInt32(construction, "last", &attributes->last, status);
    if (TF_GetCode(status)) TF_OpKernelConstruction_Failure(construction, status);
    TF_DeleteStatus(status);
    return attributes;
}

/* Returns whether an operation uses AMX for a batch. A group of 32 images costs as much as some 8 images without it. */
static int uses_amx(const Attributes *attributes, long images) { return attributes->amx && images >= 8; }

/* What an operation reads and writes. */
typedef struct {
    TF_Tensor *first, *second, *third, *output, *scratch;
    TF_Status *status;
} Tensors;

/* Reads the two inputs. */
static Tensors inputs_of(TF_OpKernelContext *context) {
    Tensors t = {.status = TF_NewStatus()};
    TF_GetInput(context, 0, &t.first, t.status);
    if (!TF_GetCode(t.status)) TF_GetInput(context, 1, &t.second, t.status);
    return t;
}

/* Returns whether a tensor has four dimensions, of which the first alone may be 0. */
static int is_batch(const TF_Tensor *tensor) {
    if (TF_NumDims(tensor) != 4) return 0;
    for (int i = 1; i < 4; i++)
        if (TF_Dim(tensor, i) <= 0) return 0;
    return 1;
}

/* Makes the output and the scratch memory. Returns whether there was no error, of these or before. */
static int allocate(TF_OpKernelContext *context, Tensors *t, const int64_t sizes[4], int64_t scratch) {
    const AllocatorAttributes on_host = {sizeof on_host, 1};
    if (TF_GetCode(t->status)) return 0;
    const int64_t bytes = sizes[0] * sizes[1] * sizes[2] * sizes[3] * sizeof(bfloat16);
    t->output = TF_AllocateOutput(context, 0, BFLOAT16, sizes, 4, bytes, t->status);
    if (TF_GetCode(t->status)) return 0;
    t->scratch = TF_AllocateTemp(context, UINT8, &scratch, 1, &on_host, t->status); /* TensorFlow aligns it to 64 bytes */
    return !TF_GetCode(t->status);
}

/* Reports an error, if there was one, and lets go of the tensors. */
static void end(TF_OpKernelContext *context, Tensors t) {
    if (TF_GetCode(t.status)) TF_OpKernelContext_Failure(context, t.status);
    if (t.first) TF_DeleteTensor(t.first);
    if (t.second) TF_DeleteTensor(t.second);
    if (t.third) TF_DeleteTensor(t.third);
    if (t.output) TF_DeleteTensor(t.output);
    if (t.scratch) TF_DeleteTensor(t.scratch);
    TF_DeleteStatus(t.status);
}

static void compute_convolution(void *attributes, TF_OpKernelContext *context) {
    const Attributes *a = attributes;
    Tensors t = inputs_of(context);
    if (TF_GetCode(t.status)) return end(context, t);
    const int inner = a->transposed ? 3 : 2; /* the dimension of the kernel that is summed over */
    if (!is_batch(t.first) || !is_batch(t.second) || TF_Dim(t.second, 0) != 3 || TF_Dim(t.second, 1) != 3 ||
        TF_Dim(t.second, inner) != TF_Dim(t.first, 3)) {
        TF_SetStatus(t.status, INVALID_ARGUMENT,
                     "x and kernel must have shapes [n, h, w, c] and [3, 3, c, k], or [3, 3, k, c] if it is transposed.");
        return end(context, t);
    }
    const long images = TF_Dim(t.first, 0), height = TF_Dim(t.first, 1), width = TF_Dim(t.first, 2);
    const long channels = TF_Dim(t.first, 3), filters = TF_Dim(t.second, 5 - inner);
    const int64_t sizes[4] = {images, height, width, filters};
    if (a->last == ADD || a->last == MASK) {
        TF_GetInput(context, 2, &t.third, t.status);
        if (TF_GetCode(t.status)) return end(context, t);
        int fits = is_batch(t.third);
        for (int i = 0; fits && i < 4; i++) fits = TF_Dim(t.third, i) == sizes[i];
        if (!fits) {
            TF_SetStatus(t.status, INVALID_ARGUMENT, "other must have the shape of the output.");
            return end(context, t);
        }
    }
    const int amx = uses_amx(a, images);
    const long bytes = (amx ? convolution_amx_scratch : convolution_scratch)(
        images ? images : 1, height, width, channels, filters, a->threads);
    if (allocate(context, &t, sizes, bytes) && images)
        (amx ? convolution_amx : convolution)(
            TF_TensorData(t.first), TF_TensorData(t.second), a->transposed, a->last,
            t.third ? TF_TensorData(t.third) : NULL, images, height, width, channels, filters, a->threads,
            TF_TensorData(t.scratch), TF_TensorData(t.output));
    end(context, t);
}

static void compute_filter_gradient(void *attributes, TF_OpKernelContext *context) {
    const Attributes *a = attributes;
    Tensors t = inputs_of(context);
    if (TF_GetCode(t.status)) return end(context, t);
    int fits = is_batch(t.first) && is_batch(t.second);
    for (int i = 0; fits && i < 3; i++) fits = TF_Dim(t.first, i) == TF_Dim(t.second, i);
    if (!fits) {
        TF_SetStatus(t.status, INVALID_ARGUMENT, "x and dy must have shapes [n, h, w, c] and [n, h, w, k].");
        return end(context, t);
    }
    const long images = TF_Dim(t.first, 0), height = TF_Dim(t.first, 1), width = TF_Dim(t.first, 2);
    const long channels = TF_Dim(t.first, 3), filters = TF_Dim(t.second, 3);
    const int64_t sizes[4] = {3, 3, channels, filters};
    const int amx = uses_amx(a, images);
    const long bytes = (amx ? filter_gradient_amx_scratch : filter_gradient_scratch)(
        images ? images : 1, height, width, channels, filters, a->threads);
    const int allocated = allocate(context, &t, sizes, bytes);
    if (allocated && !images) memset(TF_TensorData(t.output), 0, 9 * channels * filters * sizeof(bfloat16));
    if (allocated && images)
        (amx ? filter_gradient_amx : filter_gradient)(
            TF_TensorData(t.first), TF_TensorData(t.second), images, height, width, channels, filters, a->threads,
            TF_TensorData(t.scratch), TF_TensorData(t.output));
    end(context, t);
}

static void infer_shape(TF_ShapeInferenceContext *context, TF_Status *status) {
    TF_ShapeInferenceContextSetUnknownShape(context, status); /* the functions in __init__.py set the shape */
}

/* Registers an operation. `inputs` and `attributes` end with NULL. */
static void register_operation(const char *name, const char *const *inputs, const char *const *attributes,
                               Create create_one, Compute compute) {
    TF_Status *status = TF_NewStatus();
    void *operation = TF_NewOpDefinitionBuilder(name);
    for (; *inputs; inputs++) TF_OpDefinitionBuilderAddInput(operation, *inputs);
    TF_OpDefinitionBuilderAddOutput(operation, "output: bfloat16");
    for (; *attributes; attributes++) TF_OpDefinitionBuilderAddAttr(operation, *attributes);
    TF_OpDefinitionBuilderSetShapeInferenceFunction(operation, infer_shape);
    TF_RegisterOpDefinition(operation, status);
    if (!TF_GetCode(status))
        TF_RegisterKernelBuilder(name, TF_NewKernelBuilder(name, "CPU", create_one, compute, free), status);
    TF_DeleteStatus(status);
}

__attribute__((constructor)) static void register_operations(void) {
    if (!find_functions()) return;
    register_operation(
        "AllconvConvolution", (const char *const[]){"x: bfloat16", "kernel: bfloat16", "other: others * bfloat16", NULL},
        (const char *const[]){"threads: int >= 1", "amx: bool", "transposed: bool", "last: int", "others: int >= 0", NULL},
        create_convolution, compute_convolution);
    register_operation("AllconvFilterGradient", (const char *const[]){"x: bfloat16", "dy: bfloat16", NULL},
                       (const char *const[]){"threads: int >= 1", "amx: bool", NULL}, create, compute_filter_gradient);
}

#endif
