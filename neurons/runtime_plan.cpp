// Compiling a network: which stages run in which order, and where in the arena their data lies.
#include "neurons/runtime_plan.h"

#include "engine/graph_fold.h"
#include "neurons/runtime_compiler.h"

namespace nc::plan {

Compiler::Compiler(const Graph& graph, const RuntimeOptions& options) : options_(options) {
    check(graph);
    check_supported(graph);
    plan_.graph = fold_amplitudes(fold_batch_norm(graph));
    plan_.table = options.table != nullptr ? options.table : kernels::best();
    if (plan_.table == nullptr || plan_.table->cuda)
        refuse("there are no CPU kernels to run on: see NC_ISA");
    plan_.kernels = kernels::stages(plan_.table->name);
    if (options.integers) whole_ = whole_network(plan_.graph);
    if (whole_) {
        plan_.integers = kernels::integer_stages(plan_.table->name);
        plan_.most_steps = whole_->most_steps;
    }
    plan_.threads = std::clamp<size_t>(options.threads, 1, 256);
    plan_.chunk = std::clamp<size_t>(options.T, 1, most_steps);
    shapes_ = infer_shapes(plan_.graph);
    order_ = topological_order(plan_.graph);
    place_.resize(order_.size());
    for (size_t i = 0; i < order_.size(); ++i) place_[order_[i]] = i;
    signals_.resize(order_.size());
    timed_.resize(order_.size());
    for (const size_t node : order_) {
        const Operation& op = this->graph().nodes[node].op;
        timed_[node] = std::holds_alternative<Neuron>(op) || std::holds_alternative<StepBias>(op) ||
                       (std::holds_alternative<Input>(op) && options.temporal);
        for (const size_t e : inputs_of(this->graph(), node))
            if (timed_[this->graph().edges[e].from]) timed_[node] = true;
    }
}

Plan Compiler::compile() {
    for (const auto& [name, path] : options_.layers)
        if (!is_weight_layer(graph().nodes[find_node(graph(), name)].op))
            refuse("'" + name + "' is not a weight layer, so it has no path to choose");
    for (const size_t node : order_)
        std::visit([&](const auto& op) { lower(op, node); }, graph().nodes[node].op);
    plan_.offsets = arena_.offsets(&plan_.arena_bytes);
    return std::move(plan_);
}

Plan compile(const Graph& graph, const RuntimeOptions& options) {
    return Compiler(graph, options).compile();
}

}  // namespace nc::plan
