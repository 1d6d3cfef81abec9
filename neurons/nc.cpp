// The C interface: handles with generations, statuses instead of exceptions.
#include "neurons/nc.h"

#include <atomic>
#include <cstdio>
#include <cstring>
#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <variant>

#include "io/model.h"
#include "neurons/analog.h"
#include "neurons/runtime.h"

namespace {

using nc::AnalogRuntime;
using nc::Runtime;

struct Loaded {
    std::variant<Runtime, AnalogRuntime> runtime;
    nc_info info;
    Runtime* spiking() { return std::get_if<Runtime>(&runtime); }
};

// A handle is a slot's number and its generation, which grows when the slot is freed: an old handle
// is recognised for as long as 2^32 models have not passed through its slot.
struct Slot {
    std::atomic<uint32_t> generation{1};
    std::atomic<bool> busy{false};
    bool taken = false;  // guarded by slots_mutex
    std::unique_ptr<Loaded> model;
};

constexpr size_t most_models = 4096;
Slot slots[most_models];
std::mutex slots_mutex;  // of loading and freeing; running takes no lock

thread_local char message[1024] = "";

nc_status say(nc_status status, const char* text) {
    std::snprintf(message, sizeof message, "%s", text);
    return status;
}

// Calls body, which returns a status; whatever it throws becomes one.
template <class Body>
nc_status guarded(const Body& body) noexcept {
    try {
        return body();
    } catch (const nc::Error& e) {
        const std::string text =
            e.hint.empty() ? e.what() : std::string(e.what()) + " (" + e.hint + ")";
        return say(e.kind == nc::ErrorKind::usage ? NC_FAILED : NC_BAD_MODEL, text.c_str());
    } catch (const std::bad_alloc&) {
        return say(NC_NO_MEMORY, "[nc] there is not enough memory");
    } catch (const std::exception& e) {
        return say(NC_FAILED, e.what());
    } catch (...) {
        return say(NC_FAILED, "[nc] an unknown error");
    }
}

// Holds a model while a call uses it.
class Use {
 public:
    explicit Use(nc_model handle) {
        const size_t number = size_t(handle & 0xffffffff);
        const uint32_t generation = uint32_t(handle >> 32);
        if (number >= most_models) {
            status_ = say(NC_BAD_HANDLE, "[nc] no such model");
            return;
        }
        Slot& slot = slots[number];
        // Looked at before the slot is touched: an old handle must not keep its successor's user
        // out.
        if (slot.generation.load(std::memory_order_acquire) != generation) {
            status_ = say(NC_BAD_HANDLE, freed);
            return;
        }
        const bool was_busy = slot.busy.exchange(true, std::memory_order_acquire);
        if (slot.generation.load(std::memory_order_acquire) != generation ||
            (!was_busy && slot.model == nullptr)) {
            if (!was_busy) slot.busy.store(false, std::memory_order_release);
            status_ = say(NC_BAD_HANDLE, freed);
        } else if (was_busy) {
            status_ = say(NC_BUSY, "[nc] another thread is using this model");
        } else {
            slot_ = &slot;
        }
    }
    ~Use() {
        if (slot_ != nullptr) slot_->busy.store(false, std::memory_order_release);
    }
    Use(const Use&) = delete;
    Use& operator=(const Use&) = delete;

    nc_status status() const { return status_; }
    Slot& slot() const { return *slot_; }
    Loaded& model() const { return *slot_->model; }

 private:
    static constexpr const char* freed = "[nc] the model was freed, or never loaded";
    Slot* slot_ = nullptr;
    nc_status status_ = NC_OK;
};

nc_status load(const nc::Model& model, const nc_options* given, nc_model* out) {
    const nc_options o = given != nullptr ? *given : nc_options{};
    if (o.path > NC_EVENT) return say(NC_BAD_ARGUMENT, "[nc] options: unknown path");
    if (o.threads > 256) return say(NC_BAD_ARGUMENT, "[nc] options: more than 256 threads");
    if (o.batch > 65536) return say(NC_BAD_ARGUMENT, "[nc] options: a batch of more than 65536");
    if (!(o.exit_margin >= 0)) return say(NC_BAD_ARGUMENT, "[nc] options: exit_margin is below 0");
    const size_t threads = o.threads > 0 ? o.threads : 1;
    nc::RuntimeOptions options;
    options.threads = threads;
    if (model.info.T > 0) options.T = size_t(model.info.T);
    if (o.steps > 0) options.T = o.steps;
    options.temporal = !model.info.framing.empty();
    options.path = o.path == NC_DENSE   ? nc::RuntimePath::dense
                   : o.path == NC_EVENT ? nc::RuntimePath::event
                                        : nc::RuntimePath::automatic;
    options.exit_margin = double(o.exit_margin);
    const bool spiking = nc::is_spiking(model.graph);
    const auto compile = [&]() -> std::variant<Runtime, AnalogRuntime> {
        if (spiking) return Runtime(model.graph, options);
        return AnalogRuntime(model.graph, {.threads = threads, .batch = o.batch > 0 ? o.batch : 1});
    };
    auto loaded = std::make_unique<Loaded>(Loaded{compile(), {}});
    nc_info& info = loaded->info;
    std::visit(
        [&](const auto& runtime) {
            const nc::Shape& sample = runtime.sample();
            info.input_size = sample.elements();
            info.height = sample.rank() == 3 ? sample[0] : 1;
            info.width = sample.rank() == 3 ? sample[1] : 1;
            info.channels = sample.back();
            info.outputs = runtime.outputs();
            info.memory_bytes = runtime.memory_bytes();
            std::snprintf(info.table, sizeof info.table, "%s", runtime.table().name);
        },
        loaded->runtime);
    info.steps = size_t(spiking && model.info.T > 0 ? model.info.T : 0);
    info.temporal = spiking && options.temporal;

    const std::lock_guard lock(slots_mutex);
    for (size_t i = 0; i < most_models; ++i) {
        if (slots[i].taken) continue;
        // A call with an old handle may be looking at the slot for a moment.
        while (slots[i].busy.exchange(true, std::memory_order_acquire)) {
        }
        slots[i].taken = true;
        slots[i].model = std::move(loaded);
        *out = uint64_t(slots[i].generation.load()) << 32 | i;
        slots[i].busy.store(false, std::memory_order_release);
        return NC_OK;
    }
    return say(NC_NO_MEMORY, "[nc] 4096 models are loaded already");
}

std::string counts(const char* what, size_t given, size_t wanted) {
    return std::string("[nc] ") + what + " has " + std::to_string(given) + " values, not " +
           std::to_string(wanted);
}

// Whether a * b * c is `wanted`, without overflow.
bool product_is(size_t a, size_t b, size_t c, size_t wanted) {
    size_t ab = 0, abc = 0;
    return !__builtin_mul_overflow(a, b, &ab) && !__builtin_mul_overflow(ab, c, &abc) &&
           abc == wanted;
}

}  // namespace

nc_status nc_load(const char* path, const nc_options* options, nc_model* model) {
    if (model == nullptr || path == nullptr) return say(NC_BAD_ARGUMENT, "[nc] load: null pointer");
    *model = 0;
    return guarded([&] {
        try {
            return load(nc::load_model(path), options, model);
        } catch (const nc::Error& e) {
            return say(NC_BAD_MODEL, e.what());
        }
    });
}

nc_status nc_load_bytes(const void* bytes, size_t size, const nc_options* options,
                        nc_model* model) {
    if (model == nullptr || bytes == nullptr)
        return say(NC_BAD_ARGUMENT, "[nc] load: null pointer");
    *model = 0;
    return guarded([&] {
        const auto* begin = static_cast<const uint8_t*>(bytes);
        try {
            return load(nc::parse_model(std::vector<uint8_t>(begin, begin + size), "<bytes>"),
                        options, model);
        } catch (const nc::Error& e) {
            return say(NC_BAD_MODEL, e.what());
        }
    });
}

nc_status nc_get_info(nc_model model, nc_info* info) {
    if (info == nullptr) return say(NC_BAD_ARGUMENT, "[nc] info: null pointer");
    const Use use(model);
    if (use.status() != NC_OK) return use.status();
    *info = use.model().info;
    return NC_OK;
}

nc_status nc_run(nc_model model, const float* input, size_t input_count, size_t samples,
                 size_t steps, float* logits, size_t logits_count) {
    if (input == nullptr || logits == nullptr)
        return say(NC_BAD_ARGUMENT, "[nc] run: null pointer");
    const Use use(model);
    if (use.status() != NC_OK) return use.status();
    return guarded([&] {
        Loaded& m = use.model();
        if (samples == 0 || steps == 0)
            return say(NC_BAD_ARGUMENT, "[nc] run: no samples, or no steps");
        Runtime* spiking = m.spiking();
        const bool frames =
            spiking != nullptr && product_is(samples, steps, m.info.input_size, input_count);
        if (!frames && !product_is(samples, 1, m.info.input_size, input_count))
            return say(
                NC_BAD_ARGUMENT,
                ("[nc] run: input has " + std::to_string(input_count) + " values; " +
                 std::to_string(samples) + " samples of " + std::to_string(m.info.input_size) +
                 ", or that for each of " + std::to_string(steps) + " steps, are something else")
                    .c_str());
        if (!product_is(samples, 1, m.info.outputs, logits_count))
            return say(NC_BAD_ARGUMENT,
                       counts("logits", logits_count, samples * m.info.outputs).c_str());
        if (spiking != nullptr)
            spiking->run(input, frames && (steps > 1 || m.info.temporal), steps, samples, logits);
        else
            std::get<AnalogRuntime>(m.runtime).run(input, samples, logits);
        return NC_OK;
    });
}

nc_status nc_step(nc_model model, const float* frame, size_t frame_count, float* logits,
                  size_t logits_count) {
    if (logits == nullptr) return say(NC_BAD_ARGUMENT, "[nc] step: null pointer");
    const Use use(model);
    if (use.status() != NC_OK) return use.status();
    return guarded([&] {
        Loaded& m = use.model();
        Runtime* spiking = m.spiking();
        if (spiking == nullptr)
            return say(NC_BAD_ARGUMENT, "[nc] step: an analog network has no steps");
        if (frame != nullptr && frame_count != m.info.input_size)
            return say(NC_BAD_ARGUMENT,
                       counts("the frame", frame_count, m.info.input_size).c_str());
        if (logits_count != m.info.outputs)
            return say(NC_BAD_ARGUMENT, counts("logits", logits_count, m.info.outputs).c_str());
        if (frame == nullptr && spiking->steps_done() == 0)
            return say(NC_BAD_ARGUMENT, "[nc] the first step of a sample needs a frame");
        spiking->step(frame, nullptr, logits);
        return NC_OK;
    });
}

nc_status nc_reset(nc_model model) {
    const Use use(model);
    if (use.status() == NC_OK && use.model().spiking() != nullptr) use.model().spiking()->reset();
    return use.status();
}

nc_status nc_free(nc_model model) {
    const std::lock_guard lock(slots_mutex);
    const Use use(model);
    if (use.status() != NC_OK) return use.status();
    Slot& slot = use.slot();
    slot.generation.fetch_add(1, std::memory_order_release);
    slot.model.reset();
    slot.taken = false;
    return NC_OK;
}

const char* nc_error(void) {
    return message;
}
