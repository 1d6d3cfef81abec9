// The form integer targets take: pools are counts of spikes, and every way into a neuron has
// weights.
#include "convert/integer_form.h"

#include "engine/graph_edit.h"

namespace nc {

void refuse_to_quantize(const Graph& g, size_t node, const std::string& what) {
    throw Error("[quantize] node '" + g.nodes[node].name + "' (" +
                    std::string(operation_name(g.nodes[node].op)) + "): " + what,
                ErrorKind::model);
}

namespace {

size_t first_source(const Graph& g, size_t node) {
    return g.edges[inputs_of(g, node).front()].from;
}

// Conv, then an average pool of what only the pool reads, is one convolution with a larger kernel.
Conv with_pool(const Conv& conv, const ops::PoolOptions& pool) {
    const auto& o = conv.options;
    const Shape& s = conv.weight.shape();  // [kh, kw, cin / groups, cout]
    const size_t kh = s[0] + (pool.kh - 1) * o.stride_h, kw = s[1] + (pool.kw - 1) * o.stride_w;
    const size_t row = s[2] * s[3];
    std::vector<double> sum(kh * kw * row, 0);
    const auto w = conv.weight.to_vector<float>();
    for (size_t py = 0; py < pool.kh; ++py)
        for (size_t px = 0; px < pool.kw; ++px)
            for (size_t y = 0; y < s[0]; ++y)
                for (size_t x = 0; x < s[1]; ++x)
                    for (size_t i = 0; i < row; ++i)
                        sum[((y + py * o.stride_h) * kw + x + px * o.stride_w) * row + i] +=
                            double(w[(y * s[1] + x) * row + i]) / double(pool.kh * pool.kw);
    Conv out = conv;
    out.weight = Tensor::from(std::vector<float>(sum.begin(), sum.end()), {kh, kw, s[2], s[3]});
    out.options.stride_h = o.stride_h * pool.stride_h;
    out.options.stride_w = o.stride_w * pool.stride_w;
    return out;
}

Graph merge_pools(Graph g) {
    for (size_t i = 0; i < g.nodes.size(); ++i) {
        const auto* pool = std::get_if<AveragePool>(&g.nodes[i].op);
        if (!pool || inputs_of(g, i).size() != 1) continue;
        const size_t from = first_source(g, i);
        const auto* conv = std::get_if<Conv>(&g.nodes[from].op);
        if (!conv) continue;
        if (outputs_of(g, from).size() != 1 || pool->options.pad_h + pool->options.pad_w > 0 ||
            conv->options.dilation_h * conv->options.dilation_w != 1)
            refuse_to_quantize(
                g, i, "this pool after '" + g.nodes[from].name + "' cannot become part of it");
        Operation merged = with_pool(*conv, pool->options);
        g = replace(std::move(g), from, std::move(merged));
        g = remove(std::move(g), i);
        i = size_t(-1);  // indices have moved
    }
    return g;
}

size_t window(const Graph& g, const std::vector<Shape>& shapes, size_t node) {
    if (const auto* pool = std::get_if<AveragePool>(&g.nodes[node].op))
        return pool->options.kh * pool->options.kw;
    const Shape& x = shapes[first_source(g, node)];
    return x[0] * x[1];
}

// A tensor times a factor, rounded once.
Tensor times(const Tensor& t, double factor) {
    std::vector<float> values = t.to_vector<float>();
    for (float& x : values) x = float(double(x) * factor);
    return Tensor::from(values, t.shape());
}

// Weights (and Scales) that a node's output reaches through Flatten and sums; Error at anything
// else.
void weights_after(const Graph& g, size_t node, std::vector<size_t>& out) {
    for (const size_t e : outputs_of(g, node)) {
        const size_t to = g.edges[e].to;
        if (has_weights(g.nodes[to].op))
            out.push_back(to);
        else if (is<Flatten>(g, to) || is<Add>(g, to))
            weights_after(g, to, out);
        else
            refuse_to_quantize(g, to, "pooled spikes need weights after them");
    }
}

}  // namespace

Graph give_weights(Graph g) {
    g = merge_pools(std::move(g));
    for (size_t e = 0; e < g.edges.size(); ++e) {
        const size_t from = g.edges[e].from, to = g.edges[e].to;
        if (has_weights(g.nodes[from].op) || is<Add>(g, from)) continue;
        // Into a neuron, an output, or a sum that leads to one.
        size_t end = to;
        while (is<Add>(g, end) && outputs_of(g, end).size() == 1)
            end = g.edges[outputs_of(g, end).front()].to;
        if (!is<Neuron>(g, end) && !is<Output>(g, end)) continue;
        const size_t channels = infer_shapes(g)[from].back();
        const std::string name = unique_name(g, g.nodes[to].name + "_from");
        g = insert_on_edge(std::move(g), e, name, Scale{Tensor::full<float>({channels}, 1)});
    }
    return sorted(g);
}

Graph count_pools(Graph g) {
    for (size_t i = 0; i < g.nodes.size(); ++i) {
        if (!is<AveragePool>(g, i) && !is<GlobalAveragePool>(g, i)) continue;
        const size_t k = window(g, infer_shapes(g), i);
        for (size_t n = 0; n <= k; ++n)
            if (float(n) * float(1.0 / double(k)) * float(k) != float(n))
                refuse_to_quantize(g, i,
                                   "counts of a window of " + std::to_string(k) +
                                       " are not exact in floats as an average");
        std::vector<size_t> weights;
        weights_after(g, i, weights);
        for (const size_t w : weights) {
            Operation op = g.nodes[w].op;
            if (auto* linear = std::get_if<Linear>(&op))
                linear->weight = times(linear->weight, 1.0 / double(k));
            else if (auto* conv = std::get_if<Conv>(&op))
                conv->weight = times(conv->weight, 1.0 / double(k));
            else
                std::get<Scale>(op).scale = times(std::get<Scale>(op).scale, 1.0 / double(k));
            if (inputs_of(g, w).size() != 1)
                refuse_to_quantize(g, w, "it adds pooled spikes to others");
            g = replace(std::move(g), w, op);
        }
        const std::string name = unique_name(g, g.nodes[i].name + "_count");
        g = insert_after(std::move(g), i, name, Scale{Tensor::full<float>({1}, float(k))});
    }
    return sorted(g);
}

}  // namespace nc
