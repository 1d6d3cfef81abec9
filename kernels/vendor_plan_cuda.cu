// A convolution as cuDNN plans it: a graph of one operation, an engine that its heuristics propose.
//
// The first engine is taken that is deterministic, rounds no more than asked and fits the scratch.
// Nothing is timed, so the choice is a function of the shape, the card and the library. Making a
// plan allocates: what is to be recorded must have run once before.
#include <string.h>

#include <new>
#include <type_traits>

#include "kernels/vendor_cuda.cuh"

namespace nc::kernels::on_cuda {

struct PlanKey {
    ConvShape shape;
    Direction direction;
    Precision precision;
};
static_assert(std::has_unique_object_representations_v<PlanKey>);  // compared as bytes
// What cuDNN made of one convolution. It is built on descriptors that are kept with it.
struct Plan {
    PlanKey key;
    cudnnBackendDescriptor_t kept[8];
    int count;
    cudnnBackendDescriptor_t plan;  // null: cuDNN cannot
};

constexpr int most_plans = 1024;
struct ConvPlans {
    Plan plans[most_plans];  // the oldest gives way
    size_t made;
};

namespace {

void forget(Plan& plan) {
    if (plan.plan != nullptr) cudnnBackendDestroyDescriptor(plan.plan);
    for (int i = plan.count; i-- > 0;) cudnnBackendDestroyDescriptor(plan.kept[i]);
    plan.plan = nullptr;
    plan.count = 0;
}

// Makes descriptors; after the first failure does nothing.
struct Builder {
    Plan& plan;
    bool ok = true;

    cudnnBackendDescriptor_t make(cudnnBackendDescriptorType_t type) {
        cudnnBackendDescriptor_t made = nullptr;
        if (ok) ok = cudnnBackendCreateDescriptor(type, &made) == CUDNN_STATUS_SUCCESS;
        if (ok) plan.kept[plan.count++] = made;
        return made;
    }
    template <class T>
    void set(cudnnBackendDescriptor_t descriptor, cudnnBackendAttributeName_t name,
             cudnnBackendAttributeType_t type, const T* values, int64_t count) {
        if (ok)
            ok = cudnnBackendSetAttribute(descriptor, name, type, count, values) ==
                 CUDNN_STATUS_SUCCESS;
    }
    void set(cudnnBackendDescriptor_t descriptor, cudnnBackendAttributeName_t name,
             const cudnnBackendDescriptor_t& value) {
        set(descriptor, name, CUDNN_TYPE_BACKEND_DESCRIPTOR, &value, 1);
    }
    void finish(cudnnBackendDescriptor_t descriptor) {
        if (ok) ok = cudnnBackendFinalize(descriptor) == CUDNN_STATUS_SUCCESS;
    }

    // [n, c, h, w] as cuDNN counts, stored [n, h, w, c].
    cudnnBackendDescriptor_t tensor(int64_t id, cudnnDataType_t type, size_t n, size_t h, size_t w,
                                    size_t c) {
        const int64_t sizes[] = {int64_t(n), int64_t(c), int64_t(h), int64_t(w)};
        const int64_t strides[] = {int64_t(h * w * c), 1, int64_t(w * c), int64_t(c)};
        const int64_t bytes = 16;
        const cudnnBackendDescriptor_t t = make(CUDNN_BACKEND_TENSOR_DESCRIPTOR);
        set(t, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, &type, 1);
        set(t, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, sizes, 4);
        set(t, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, strides, 4);
        set(t, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, &id, 1);
        set(t, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, &bytes, 1);
        finish(t);
        return t;
    }
    cudnnBackendDescriptor_t convolution(const ConvShape& s) {
        const int64_t dimensions = 2;
        const int64_t stride[] = {int64_t(s.stride_h), int64_t(s.stride_w)};
        const int64_t pad[] = {int64_t(s.pad_h), int64_t(s.pad_w)};
        const int64_t dilation[] = {int64_t(s.dilation_h), int64_t(s.dilation_w)};
        const cudnnDataType_t sums = CUDNN_DATA_FLOAT;
        const cudnnConvolutionMode_t mode = CUDNN_CROSS_CORRELATION;
        const cudnnBackendDescriptor_t c = make(CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR);
        set(c, CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, CUDNN_TYPE_INT64, &dimensions, 1);
        set(c, CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, &sums, 1);
        set(c, CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, &mode, 1);
        set(c, CUDNN_ATTR_CONVOLUTION_DILATIONS, CUDNN_TYPE_INT64, dilation, 2);
        set(c, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, CUDNN_TYPE_INT64, stride, 2);
        set(c, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, CUDNN_TYPE_INT64, pad, 2);
        set(c, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, CUDNN_TYPE_INT64, pad, 2);
        finish(c);
        return c;
    }
};

constexpr int64_t id_x = 1, id_w = 2, id_y = 3;

// The names of an operation's attributes.
struct Names {
    cudnnBackendDescriptorType_t operation;
    cudnnBackendAttributeName_t x, w, y, convolution, alpha, beta;
};
Names names_of(Direction direction) {
    switch (direction) {
        case Direction::forward:
            break;
        case Direction::backward_input:
            return {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR,
                    CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX,
                    CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W,
                    CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY,
                    CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC,
                    CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA,
                    CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA};
        case Direction::backward_weight:
            return {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR,
                    CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X,
                    CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW,
                    CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY,
                    CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC,
                    CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA,
                    CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA};
    }
    return {CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR,
            CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X,
            CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,
            CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y,
            CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC,
            CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA,
            CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA};
}

// Whether an engine gives the same bits every time and rounds no more than asked. Winograd's and
// Fourier's transforms have errors that the sum of |x| |w| does not bound.
bool acceptable(cudnnBackendDescriptor_t config, Precision precision) {
    cudnnBackendDescriptor_t engine = nullptr;
    if (cudnnBackendCreateDescriptor(CUDNN_BACKEND_ENGINE_DESCRIPTOR, &engine) !=
        CUDNN_STATUS_SUCCESS)
        return false;
    cudnnBackendNumericalNote_t notes[CUDNN_NUMERICAL_NOTE_TYPE_COUNT];
    int64_t found = 0, count = 0;
    bool fine =
        cudnnBackendGetAttribute(config, CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR,
                                 1, &found, &engine) == CUDNN_STATUS_SUCCESS &&
        cudnnBackendGetAttribute(engine, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE,
                                 CUDNN_TYPE_NUMERICAL_NOTE, CUDNN_NUMERICAL_NOTE_TYPE_COUNT, &count,
                                 notes) == CUDNN_STATUS_SUCCESS;
    for (int64_t i = 0; fine && i < count; ++i) switch (notes[i]) {
            case CUDNN_NUMERICAL_NOTE_TENSOR_CORE:
                fine = precision != Precision::fp32;
                break;
            case CUDNN_NUMERICAL_NOTE_STRICT_NAN_PROP:
                break;
            default:
                fine = false;
        }
    cudnnBackendDestroyDescriptor(engine);
    return fine;
}

// A plan of one of the engines the heuristic proposes, or null.
cudnnBackendDescriptor_t plan_of(cudnnHandle_t handle, cudnnBackendDescriptor_t config,
                                 const PlanKey& key) {
    cudnnBackendDescriptor_t plan = nullptr;
    if (cudnnBackendCreateDescriptor(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, &plan) !=
        CUDNN_STATUS_SUCCESS)
        return nullptr;
    int64_t workspace = 0, found = 0;
    if (cudnnBackendSetAttribute(plan, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1,
                                 &handle) == CUDNN_STATUS_SUCCESS &&
        cudnnBackendSetAttribute(plan, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG,
                                 CUDNN_TYPE_BACKEND_DESCRIPTOR, 1,
                                 &config) == CUDNN_STATUS_SUCCESS &&
        cudnnBackendFinalize(plan) == CUDNN_STATUS_SUCCESS &&
        cudnnBackendGetAttribute(plan, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64,
                                 1, &found, &workspace) == CUDNN_STATUS_SUCCESS &&
        size_t(workspace) <= ConvRoom(key.shape, key.precision).workspace)
        return plan;
    cudnnBackendDestroyDescriptor(plan);
    return nullptr;
}

void choose_engine(cudnnHandle_t handle, Builder& build, cudnnBackendDescriptor_t graph,
                   cudnnBackendHeurMode_t mode) {
    constexpr int64_t most = 64;
    const cudnnBackendDescriptor_t heuristic = build.make(CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
    build.set(heuristic, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph);
    build.set(heuristic, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, &mode, 1);
    build.finish(heuristic);
    cudnnBackendDescriptor_t configs[most] = {};
    int64_t made = 0, found = 0;
    while (build.ok && made < most &&
           cudnnBackendCreateDescriptor(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, &configs[made]) ==
               CUDNN_STATUS_SUCCESS)
        ++made;
    if (build.ok && cudnnBackendGetAttribute(heuristic, CUDNN_ATTR_ENGINEHEUR_RESULTS,
                                             CUDNN_TYPE_BACKEND_DESCRIPTOR, made, &found,
                                             configs) != CUDNN_STATUS_SUCCESS)
        found = 0;
    for (int64_t i = 0; i < found && i < made && build.plan.plan == nullptr; ++i)
        if (acceptable(configs[i], build.plan.key.precision))
            build.plan.plan = plan_of(handle, configs[i], build.plan.key);
    for (int64_t i = 0; i < made; ++i) cudnnBackendDestroyDescriptor(configs[i]);
}

void make_plan(cudnnHandle_t handle, Plan& plan) {
    Builder build = {plan};
    const ConvShape& s = plan.key.shape;
    const Names names = names_of(plan.key.direction);
    const cudnnDataType_t type =
        plan.key.precision == Precision::bf16 ? CUDNN_DATA_BFLOAT16 : CUDNN_DATA_FLOAT;
    const float one = 1, zero = 0;
    const cudnnBackendDescriptor_t x = build.tensor(id_x, type, s.n, s.h, s.w, s.cin);
    const cudnnBackendDescriptor_t w =
        build.tensor(id_w, type, s.cout, s.kh, s.kw, s.cin / s.groups);
    const cudnnBackendDescriptor_t y = build.tensor(id_y, type, s.n, s.out_h(), s.out_w(), s.cout);
    const cudnnBackendDescriptor_t convolution = build.convolution(s);
    const cudnnBackendDescriptor_t operation = build.make(names.operation);
    build.set(operation, names.x, x);
    build.set(operation, names.w, w);
    build.set(operation, names.y, y);
    build.set(operation, names.convolution, convolution);
    build.set(operation, names.alpha, CUDNN_TYPE_FLOAT, &one, 1);
    build.set(operation, names.beta, CUDNN_TYPE_FLOAT, &zero, 1);
    build.finish(operation);
    const cudnnBackendDescriptor_t graph = build.make(CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
    build.set(graph, CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, &handle, 1);
    build.set(graph, CUDNN_ATTR_OPERATIONGRAPH_OPS, operation);
    build.finish(graph);
    choose_engine(handle, build, graph, CUDNN_HEUR_MODE_A);
    if (plan.plan == nullptr) choose_engine(handle, build, graph, CUDNN_HEUR_MODE_FALLBACK);
}

}  // namespace

const Plan* plan_for(Queue& q, const ConvShape& shape, Direction direction) {
    Vendor* const v = vendor(q);
    if (v == nullptr) return nullptr;
    if (v->plans == nullptr) v->plans = new (std::nothrow) ConvPlans();
    if (v->plans == nullptr) return nullptr;
    ConvPlans& all = *v->plans;
    const PlanKey key = {shape, direction, q.precision};
    for (int i = 0; i < most_plans && size_t(i) < all.made; ++i)
        if (memcmp(&all.plans[i].key, &key, sizeof key) == 0)
            return all.plans[i].plan != nullptr ? &all.plans[i] : nullptr;
    Plan& plan = all.plans[all.made++ % most_plans];
    forget(plan);
    plan.key = key;
    make_plan(v->dnn, plan);
    return plan.plan != nullptr ? &plan : nullptr;
}

bool execute(Queue& q, const Plan& plan, const void* x, const void* w, const void* y,
             void* workspace) {
    const Vendor* const v = vendor(q);
    if (v == nullptr) return false;
    cudnnBackendDescriptor_t pack = nullptr;
    if (!succeeded(q, cudnnBackendCreateDescriptor(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, &pack)))
        return false;
    const int64_t ids[] = {id_x, id_w, id_y};
    const void* const pointers[] = {x, w, y};
    const bool done =
        succeeded(q, cudnnBackendSetAttribute(pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS,
                                              CUDNN_TYPE_INT64, 3, ids)) &&
        succeeded(q, cudnnBackendSetAttribute(pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS,
                                              CUDNN_TYPE_VOID_PTR, 3, pointers)) &&
        succeeded(q, cudnnBackendSetAttribute(pack, CUDNN_ATTR_VARIANT_PACK_WORKSPACE,
                                              CUDNN_TYPE_VOID_PTR, 1, &workspace)) &&
        succeeded(q, cudnnBackendFinalize(pack)) &&
        succeeded(q, cudnnBackendExecute(v->dnn, plan.plan, pack));
    cudnnBackendDestroyDescriptor(pack);
    return done;
}

void forget_plans(ConvPlans* all) {
    if (all == nullptr) return;
    for (Plan& plan : all->plans) forget(plan);
    delete all;
}

}  // namespace nc::kernels::on_cuda
