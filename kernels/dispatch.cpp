// Which tables this machine can run, and the choice between them.
#include <cstdlib>
#include <cstring>

#include "kernels/backend.h"
#include "kernels/families.h"
#include "kernels/stages.h"

namespace nc::kernels {
namespace {

template <class F>
Table<F> reference_table() {
    return {.name = "reference",
            .cuda = false,
            .elementwise = reference_elementwise<F>(),
            .reduce = reference_reduce<F>(),
            .gemm = reference_gemm<F>(),
            .conv = reference_conv<F>(),
            .pool = reference_pool<F>(),
            .norm = reference_norm<F>(),
            .loss = reference_loss<F>(),
            .neuron = reference_neuron<F>(),
            .spike = reference_spike<F>(),
            .optim = reference_optim<F>(),
            .image = reference_image<F>(),
            .integer = reference_integer()};
}

const Table<float>& sse2_table() {
    static const Table<float> table = {.name = "sse2",
                                       .cuda = false,
                                       .elementwise = sse2::elementwise(),
                                       .reduce = sse2::reduce(),
                                       .gemm = sse2::gemm(),
                                       .conv = sse2::conv(),
                                       .pool = sse2::pool(),
                                       .norm = sse2::norm(),
                                       .loss = sse2::loss(),
                                       .neuron = sse2::neuron(),
                                       .spike = sse2::spike(),
                                       .optim = sse2::optim(),
                                       .image = sse2::image(),
                                       .integer = sse2::integer()};
    return table;
}

const Table<float>& avx2_table() {
    static const Table<float> table = {.name = "avx2",
                                       .cuda = false,
                                       .elementwise = avx2::elementwise(),
                                       .reduce = avx2::reduce(),
                                       .gemm = avx2::gemm(),
                                       .conv = avx2::conv(),
                                       .pool = avx2::pool(),
                                       .norm = avx2::norm(),
                                       .loss = avx2::loss(),
                                       .neuron = avx2::neuron(),
                                       .spike = avx2::spike(),
                                       .optim = avx2::optim(),
                                       .image = avx2::image(),
                                       .integer = avx2::integer()};
    return table;
}

const Table<float>& avx512_table() {
    static const Table<float> table = {.name = "avx512",
                                       .cuda = false,
                                       .elementwise = avx512::elementwise(),
                                       .reduce = avx512::reduce(),
                                       .gemm = avx512::gemm(),
                                       .conv = avx512::conv(),
                                       .pool = avx512::pool(),
                                       .norm = avx512::norm(),
                                       .loss = avx512::loss(),
                                       .neuron = avx512::neuron(),
                                       .spike = avx512::spike(),
                                       .optim = avx512::optim(),
                                       .image = avx512::image(),
                                       .integer = avx512::integer()};
    return table;
}

bool has_avx2() {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
           __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2") &&
           __builtin_cpu_supports("popcnt");
}

bool has_avx512() {
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512cd");
}

struct Usable {
    const Table<float>* tables[6];
    size_t count = 0;
    Usable() {
        tables[count++] = &reference();
        tables[count++] = &sse2_table();
        if (has_avx2()) tables[count++] = &avx2_table();
        if (has_avx512()) tables[count++] = &avx512_table();
        if (cuda() != nullptr) tables[count++] = cuda();
        if (cuda_vendor() != nullptr) tables[count++] = cuda_vendor();
    }
};

const Usable& usable_tables() {
    static const Usable u;
    return u;
}

}  // namespace

const Table<float>& reference() {
    static const Table<float> table = reference_table<float>();
    return table;
}

const Table<double>& reference_double() {
    static const Table<double> table = reference_table<double>();
    return table;
}

const Table<float>* const* usable(size_t* count) {
    *count = usable_tables().count;
    return usable_tables().tables;
}

const Table<float>* find(const char* name) {
    const Usable& u = usable_tables();
    for (size_t i = 0; i < u.count; ++i)
        if (std::strcmp(u.tables[i]->name, name) == 0) return u.tables[i];
    return nullptr;
}

const Table<float>* best() {
    const char* forced = std::getenv("NC_ISA");
    if (forced != nullptr && *forced != '\0') {
        const Table<float>* table = find(forced);
        return table != nullptr && !table->cuda ? table : nullptr;
    }
    const Table<float>* chosen = nullptr;
    for (size_t i = 0; i < usable_tables().count; ++i)
        if (!usable_tables().tables[i]->cuda) chosen = usable_tables().tables[i];
    return chosen;
}

namespace {

// A family that is not in Table: its CPU definitions by the table's name.
template <class Family>
const Family* by_name(const char* name, const Family& of_reference, const Family& of_sse2,
                      const Family& of_avx2, const Family& of_avx512) {
    if (find(name) == nullptr) return nullptr;
    if (std::strcmp(name, "reference") == 0) return &of_reference;
    if (std::strcmp(name, "sse2") == 0) return &of_sse2;
    if (std::strcmp(name, "avx2") == 0) return &of_avx2;
    return std::strcmp(name, "avx512") == 0 ? &of_avx512 : nullptr;
}

}  // namespace

const Stages* stages(const char* name) {
    static const Stages of_reference = reference_stages(), of_sse2 = sse2::stages(),
                        of_avx2 = avx2::stages(), of_avx512 = avx512::stages();
    return by_name(name, of_reference, of_sse2, of_avx2, of_avx512);
}

const IntegerStages* integer_stages(const char* name) {
    static const IntegerStages of_reference = reference_integer_stages(),
                               of_sse2 = sse2::integer_stages(), of_avx2 = avx2::integer_stages(),
                               of_avx512 = avx512::integer_stages();
    return by_name(name, of_reference, of_sse2, of_avx2, of_avx512);
}

const StageCosts* stage_costs(const char* name) {
    static const StageCosts of_reference = reference_stage_costs(), of_sse2 = sse2::stage_costs(),
                            of_avx2 = avx2::stage_costs(), of_avx512 = avx512::stage_costs();
    return by_name(name, of_reference, of_sse2, of_avx2, of_avx512);
}

const Analog* analog(const char* name) {
    static const Analog of_reference = reference_analog(), of_sse2 = sse2::analog(),
                        of_avx2 = avx2::analog(), of_avx512 = avx512::analog();
    return by_name(name, of_reference, of_sse2, of_avx2, of_avx512);
}

Probe probe(const char* name) {
    if (std::strcmp(name, "sse2") == 0) return sse2::multiply_adds;
    if (std::strcmp(name, "avx2") == 0 && has_avx2()) return avx2::multiply_adds;
    if (std::strcmp(name, "avx512") == 0 && has_avx512()) return avx512::multiply_adds;
    if (std::strcmp(name, "cuda") == 0 && cuda() != nullptr) return cuda_probe();
    return nullptr;
}

const char* why_unusable(const char* name) {
    if (find(name) != nullptr) return nullptr;
    if (std::strcmp(name, "avx2") == 0) return "this processor lacks AVX2, FMA or BMI2";
    if (std::strcmp(name, "avx512") == 0) return "this processor lacks AVX-512 F, BW, DQ, VL or CD";
    if (std::strcmp(name, "cuda") == 0 || std::strcmp(name, "cuda-vendor") == 0)
        return why_no_cuda();
    return "no such table; there are reference, sse2, avx2, avx512";
}

}  // namespace nc::kernels
