// From NIR's nodes to a Graph that runs with their semantics.
#include <algorithm>
#include <cmath>

#include "engine/graph_edit.h"
#include "io/layout.h"
#include "io/nir.h"
#include "io/nir_parts.h"

namespace nc {
namespace {

constexpr size_t most_nodes = 4096, most_edges = 16384;  // of a whole file, nested graphs included
constexpr size_t largest_window = 1 << 24;               // values of a pool's window
constexpr double most_steps = 1 << 20;                   // of a delay
constexpr size_t most_delays = 256;                      // different ones of one node

// A sample (C, H, W), (C, L) or (F) as [H, W, C], [1, L, C] or [F].
Shape sample_shape(const std::vector<size_t>& sizes, const Fields& fields) {
    if (sizes.size() == 1) return Shape{sizes[0]};
    if (sizes.size() == 2) return Shape{1, sizes[1], sizes[0]};
    if (sizes.size() == 3) return Shape{sizes[1], sizes[2], sizes[0]};
    fields.refuse("shape " + text_of(sizes) + " is not (F), (C, L) or (C, H, W)");
}

class Builder {
 public:
    Builder(const NirNode& root, const std::string& path, double dt, const std::string& output)
        : path_(path), dt_(dt), output_(output) {
        const Fields fields(root, "/node", path);
        if (const auto stored = fields.number(root.metadata, "dt")) dt_ = *stored;
        if (!(dt_ > 0)) fields.refuse("dt is " + std::to_string(dt_) + ", not positive");
        lay_flat(root, "", 0);
        if (graph_.nodes.empty()) fields.refuse("there are no nodes");
    }

    Graph build() {
        // A cycle with a delay in it needs no other.
        for (const bool delays : {true, false}) {
            if (!delays) graph_ = delay_cycles(std::move(graph_));
            for (size_t i = 0; i < sources_.size(); ++i) {
                if ((sources_[i]->type == "Delay") != delays) continue;
                Fields fields(*sources_[i], names_[i], path_);
                make(i, fields);
                fields.refuse_unknown();
            }
        }
        try {
            Graph graph = from_file_order(
                with_one_input(with_one_output(graph_, names_, output_, path_), path_));
            check_declared(graph);
            check_orders(graph);
            return with_sums(std::move(graph));
        } catch (const Error& e) {
            if (std::string(e.what()).rfind("[" + path_ + "]", 0) == 0) throw;
            throw Error("[" + path_ + "] " + e.what(), ErrorKind::model, e.hint);
        }
    }

 private:
    // Nodes and edges of this graph and those within; the inputs and outputs of inner ones become
    // named places.
    void lay_flat(const NirNode& graph, const std::string& prefix, int depth) {
        const Fields fields(graph, prefix.empty() ? "/node" : prefix, path_);
        for (const auto& [name, node] : graph.nodes) {
            const std::string full = prefix.empty() ? name : prefix + "." + name;
            if (node.type == "NIRGraph") {
                lay_flat(node, full, depth + 1);
                continue;
            }
            if (index_.count(full) > 0) fields.refuse("two nodes are named '" + full + "'");
            if (names_.size() == most_nodes)
                fields.refuse("more than " + std::to_string(most_nodes) + " nodes");
            index_[full] = names_.size();
            names_.push_back(full);
            sources_.push_back(&node);
            inner_.push_back(depth > 0);
            graph_.nodes.push_back({unique_name(graph_, plain(full)), Add{}});
        }
        std::set<std::pair<size_t, size_t>> seen;  // NIR's edges are a set
        for (const auto& [from, to] : graph.edges) {
            const size_t a = end(graph, from, prefix, "Output", fields);
            const size_t b = end(graph, to, prefix, "Input", fields);
            if (!seen.insert({a, b}).second) continue;
            if (graph_.edges.size() == most_edges)
                fields.refuse("more than " + std::to_string(most_edges) + " edges");
            graph_.edges.push_back({a, b, 0});
        }
    }

    // The node at an edge's end; of a graph its only Input or Output.
    size_t end(const NirNode& graph, const std::string& name, const std::string& prefix,
               const std::string& side, const Fields& fields) const {
        const auto found = graph.nodes.find(name);
        if (found == graph.nodes.end()) {
            std::vector<std::string> known;
            for (const auto& [other, node] : graph.nodes) known.push_back(other);
            throw Error("[" + path_ + "] " +
                            (prefix.empty() ? "the graph" : "the graph '" + prefix + "'") +
                            " has an edge to or from '" + name + "', which is not one of its nodes",
                        ErrorKind::model, suggestion(name, known));
        }
        const std::string full = prefix.empty() ? name : prefix + "." + name;
        if (found->second.type != "NIRGraph") return index_.at(full);
        std::optional<std::string> only;
        for (const auto& [inner, node] : found->second.nodes) {
            if (node.type != side) continue;
            if (only) fields.refuse("graph '" + full + "' has more than one " + side);
            only = inner;
        }
        if (!only) fields.refuse("graph '" + full + "' has no " + side);
        return index_.at(full + "." + *only);
    }

    static std::string plain(const std::string& name) {
        std::string out = name.substr(0, 240);
        for (char& c : out)
            if (!std::isalnum(static_cast<unsigned char>(c)) && c != '_' && c != '.' && c != '-')
                c = '_';
        return out.empty() ? "_" : out;
    }

    // A parameter of every neuron, in as few values as say the same: [1], [C] or [elements]. The
    // shape it was given in must be the sample's.
    Tensor per_neuron(size_t i, Fields& fields, const std::string& name) {
        const NirField& field = fields.get(name);
        return per_neuron(i, field, fields.floats(field, name), fields, name);
    }
    Tensor per_neuron(size_t i, const NirField& field, const std::vector<float>& values,
                      const Fields& fields, const std::string& name) {
        if (values.empty()) fields.refuse(name + " is empty");
        if (values.size() > 1) declared_.push_back({i, name, field.shape});
        const auto constant = [](auto begin, auto last) {
            return std::all_of(begin, last, [&](float x) { return x == *begin; });
        };
        if (constant(values.begin(), values.end())) return Tensor::full(Shape{1}, values[0]);
        const size_t channels = field.shape[0], rest = values.size() / channels;
        std::vector<float> one;
        for (size_t c = 0; c < channels; ++c) {
            const auto begin = values.begin() + std::ptrdiff_t(c * rest);
            if (!constant(begin, begin + std::ptrdiff_t(rest)))
                return Tensor::from(values, Shape{values.size()});
            one.push_back(*begin);
        }
        return Tensor::from(one, Shape{channels});
    }
    Tensor reset_or_zero(size_t i, Fields& fields) {
        fields.allow("v_reset");
        return fields.has("v_reset") ? per_neuron(i, fields, "v_reset")
                                     : Tensor::full<float>({1}, 0);
    }

    void make(size_t i, Fields& fields) {
        const std::string& type = fields.node().type;
        for (const char* field : {"input_type", "output_type"}) fields.allow(field);
        Operation& op = graph_.nodes[i].op;
        if (type == "Input" || type == "Output") {
            const std::vector<size_t> shape = fields.sizes("shape", 0, 1);
            if (inner_[i]) return;
            declared_.push_back({i, "shape", shape});
            if (type == "Input")
                op = Input{sample_shape(shape, fields)};
            else
                op = Output{};
        } else if (type == "Affine" || type == "Linear") {
            op = Linear{fields.tensor("weight", 2),
                        type == "Affine" ? fields.tensor("bias", 1) : Tensor()};
        } else if (type == "Conv1d" || type == "Conv2d") {
            const bool lines = type == "Conv1d";
            op = nir_convolution(fields, lines);
            declare_input(i, fields, std::get<Conv>(op), lines ? 1 : 2);
        } else if (type == "SumPool2d" || type == "AvgPool2d") {
            op = AveragePool{nir_pooling(fields)};
            if (type == "SumPool2d") sums_.insert(graph_.nodes[i].name);
        } else if (type == "Flatten") {
            flatten(i, fields);
        } else if (type == "Scale") {
            op = Scale{per_neuron(i, fields, "scale")};
        } else if (type == "Threshold") {
            op = Threshold{per_neuron(i, fields, "threshold")};
        } else if (type == "Delay") {
            delay(i, fields);
        } else if (type == "IF") {
            integrate_and_fire(i, fields);
        } else if (type == "LIF" && fields.node().metadata.count("beta") > 0) {
            for (const char* field : {"tau", "r", "v_leak"}) fields.allow(field);
            const double beta = *fields.number(fields.node().metadata, "beta");
            op = neuron(i, fields, per_neuron(i, fields, "v_threshold"), reset_or_zero(i, fields));
            std::get<Neuron>(op).rule.beta = beta;
        } else if (type == "I" || type == "LI" || type == "LIF" || type == "CubaLI" ||
                   type == "CubaLIF") {
            op = membrane(i, fields, type);
        } else {
            fields.refuse("NIR's node '" + type + "' is not known here");
        }
    }

    // The size a convolution says its input has.
    void declare_input(size_t i, Fields& fields, const Conv& conv, size_t axes) {
        fields.allow("input_shape");
        if (!fields.has("input_shape")) return;
        std::vector<size_t> whole = {conv.weight.shape()[1] * conv.options.groups};
        for (const size_t size : fields.sizes("input_shape", axes, 1)) whole.push_back(size);
        declared_.push_back({i, "input_shape", whole});
    }

    // Whole maps become a vector; what is flat already stays.
    void flatten(size_t i, Fields& fields) {
        const auto& given = fields.node().fields;
        fields.allow("start_dim");
        fields.allow("end_dim");
        flattened_.push_back({i, fields.number(given, "start_dim").value_or(1),
                              fields.number(given, "end_dim").value_or(-1)});
        graph_.nodes[i].op = Flatten{};
    }

    void delay(size_t i, Fields& fields) {
        const NirField& field = fields.get("delay");
        std::vector<float> steps = fields.floats(field, "delay");
        for (float& t : steps) {
            const double count = std::nearbyint(double(t) / dt_);
            if (count < 0 || count > most_steps)
                fields.refuse("a delay of " + std::to_string(t) + " s is " + std::to_string(count) +
                              " steps of " + std::to_string(dt_) + " s");
            t = float(count);
        }
        const std::set<float> different(steps.begin(), steps.end());
        if (different.empty()) fields.refuse("delay is empty");
        if (different.size() > most_delays)
            fields.refuse(std::to_string(different.size()) + " different delays in one node");
        std::vector<size_t> in = inputs_of(graph_, i);
        if (different.size() == 1) {
            declared_.push_back({i, "delay", field.shape});
            for (const size_t e : in) graph_.edges[e].delay += int(*different.begin());
            return;
        }
        // Each delay of its own is a branch that lets only its elements through.
        const std::vector<size_t> before = in;
        std::vector<Edge> edges;
        for (const float d : different) {
            std::vector<float> mask(steps.size());
            std::transform(steps.begin(), steps.end(), mask.begin(),
                           [&](float s) { return s == d ? 1.0f : 0.0f; });
            const size_t branch = add_node(
                graph_, unique_name(graph_, graph_.nodes[i].name + "." + std::to_string(int(d))),
                Scale{}, {});
            graph_.nodes[branch].op = Scale{per_neuron(branch, field, mask, fields, "delay")};
            for (const size_t e : before) {
                const Edge& old = graph_.edges[e];
                edges.push_back({old.from, branch, old.delay + int(d)});
            }
            edges.push_back({branch, i, 0});
        }
        for (auto e = before.rbegin(); e != before.rend(); ++e)
            graph_.edges.erase(graph_.edges.begin() + std::ptrdiff_t(*e));
        graph_.edges.insert(graph_.edges.end(), edges.begin(), edges.end());
    }

    // By its own semantics, unless the metadata says otherwise.
    Neuron neuron(size_t i, const Fields& fields, const Tensor& threshold, const Tensor& reset) {
        const auto& metadata = fields.node().metadata;
        Neuron out;
        out.theta = threshold;
        out.v0_fraction = 0;
        out.amplitude = Neuron::Amplitude::one;
        out.rule.compare = kernels::Compare::greater;
        out.rule.reset = kernels::Reset::to_value;
        if (const auto word = fields.word(metadata, "compare")) {
            if (*word != "greater" && *word != "greater_equal")
                fields.refuse("metadata compare is '" + *word + "'");
            if (*word == "greater_equal") out.rule.compare = kernels::Compare::greater_equal;
        }
        if (const auto word = fields.word(metadata, "reset")) {
            if (*word != "subtract" && *word != "to_value")
                fields.refuse("metadata reset is '" + *word + "'");
            if (*word == "subtract") {
                out.rule.reset = kernels::Reset::subtract;
            }
        }
        if (out.rule.reset == kernels::Reset::to_value) {
            if (reset.elements() != 1) fields.refuse("v_reset differs between neurons");
            out.rule.reset_value = double(reset.data<float>()[0]);
        }
        if (const auto v0 = metadata.find("v0"); v0 != metadata.end())
            out.v0 = per_neuron(i, v0->second, fields.floats(v0->second, "v0"), fields, "v0");
        return out;
    }

    void integrate_and_fire(size_t i, Fields& fields) {
        const Tensor r = per_neuron(i, fields, "r"), reset = reset_or_zero(i, fields),
                     threshold = per_neuron(i, fields, "v_threshold");
        const float* t = threshold.data<float>();
        const bool positive =
            std::all_of(t, t + threshold.elements(), [](float x) { return x > 0; });
        const bool plain = r.elements() == 1 && r.data<float>()[0] == 1;
        Operation& op = graph_.nodes[i].op;
        if (reset.elements() == 1 && positive && (plain || inputs_of(graph_, i).size() == 1)) {
            op = neuron(i, fields, threshold, reset);
            if (plain) return;
            const std::string name = unique_name(graph_, graph_.nodes[i].name + ".r");
            const size_t edge = inputs_of(graph_, i).front();
            graph_ = insert_on_edge(std::move(graph_), edge, name, Scale{r});
            return;
        }
        Membrane m;
        m.r = r;
        m.threshold = threshold;
        m.v_reset = reset;
        op = m;
        refuse_ours(fields);
    }

    Membrane membrane(size_t i, Fields& fields, const std::string& type) {
        Membrane m;
        m.dt = fields.number(fields.node().metadata, "dt").value_or(dt_);
        m.r = per_neuron(i, fields, "r");
        const bool synapse = type.rfind("Cuba", 0) == 0;
        if (type != "I") {
            m.tau = per_neuron(i, fields, synapse ? "tau_mem" : "tau");
            m.v_leak = per_neuron(i, fields, "v_leak");
        }
        if (synapse) {
            m.tau_syn = per_neuron(i, fields, "tau_syn");
            fields.allow("w_in");
            m.w_in =
                fields.has("w_in") ? per_neuron(i, fields, "w_in") : Tensor::full<float>({1}, 1);
        }
        if (type.back() == 'F') {
            m.threshold = per_neuron(i, fields, "v_threshold");
            m.v_reset = reset_or_zero(i, fields);
        }
        refuse_ours(fields);
        return m;
    }

    // A membrane has NIR's semantics and no other.
    static void refuse_ours(const Fields& fields) {
        for (const char* name : {"reset", "compare", "v0"})
            if (fields.node().metadata.count(name) > 0)
                fields.refuse("metadata " + std::string(name) + " does not fit its parameters");
    }

    // Shapes the file states must be those that follow from it; nothing broadcasts.
    void check_declared(const Graph& g) const {
        const std::vector<Shape> shapes = infer_shapes(g);
        std::map<std::string, size_t> places;
        for (size_t i = 0; i < g.nodes.size(); ++i) places[g.nodes[i].name] = i;
        const auto absent = [&](size_t i) { return places.count(graph_.nodes[i].name) == 0; };
        const auto input = [&](size_t i, size_t& node) {
            node = places.at(graph_.nodes[i].name);
            const auto in = inputs_of(g, node);
            const bool given = std::holds_alternative<Input>(graph_.nodes[i].op);
            return given ? shapes[node] : shapes[g.edges[in.front()].from];
        };
        const auto refuse = [&](size_t node, const std::string& what) {
            throw Error("[" + path_ + "] node '" + g.nodes[node].name + "': " + what,
                        ErrorKind::model);
        };
        for (const Flat& f : flattened_) {
            if (absent(f.node)) continue;
            size_t node = 0;
            const Shape s = input(f.node, node);
            const bool line = s.rank() == 3 && s[0] == 1;  // (C, L) or (C, 1, L)
            const bool whole =
                f.start == 0 && (f.last == -1 || f.last == 2 || (line && f.last == 1));
            if (s.rank() > 1 && !whole)
                refuse(node, "flattens dimensions " + std::to_string(int(f.start)) + " to " +
                                 std::to_string(int(f.last)) + " of " + file_text(s) +
                                 ", only all of them can be");
        }
        for (const Declared& d : declared_) {
            if (absent(d.node)) continue;
            size_t node = 0;
            const Shape s = input(d.node, node);
            std::vector<size_t> wanted = s.to_vector();
            if (s.rank() == 3) wanted = {s[2], s[0], s[1]};
            if (s.rank() == 3 && s[0] == 1 && d.shape.size() == 2) wanted = {s[2], s[1]};
            if (d.shape != wanted)
                refuse(node, d.field + " " + text_of(d.shape) + " for an input " + file_text(s));
        }
    }

    // A flattened map is enumerated by rows and columns here, by channels in the file: where it is
    // added to something that is not a map the two orders meet.
    void check_orders(const Graph& g) const {
        const std::vector<Shape> maps = output_maps(g);
        for (const Edge& e : g.edges) {
            const Edge& first = g.edges[inputs_of(g, e.to).front()];
            const Shape &a = maps[first.from], &b = maps[e.from];
            const bool plain =
                (a.rank() < 3 || a[0] * a[1] == 1) && (b.rank() < 3 || b[0] * b[1] == 1);
            if (!plain && !(a == b))
                throw Error("[" + path_ + "] node '" + g.nodes[e.to].name +
                                "': a flattened map from '" + g.nodes[first.from].name + "' or '" +
                                g.nodes[e.from].name + "' is added to what is no map",
                            ErrorKind::model);
        }
    }

    Graph with_sums(Graph g) const {
        if (sums_.empty()) return g;
        const std::vector<Shape> shapes = infer_shapes(g);
        for (size_t i = 0; i < g.nodes.size(); ++i) {
            if (sums_.count(g.nodes[i].name) == 0) continue;
            const ops::PoolOptions o = std::get<AveragePool>(g.nodes[i].op).options;
            if (double(o.kh) * double(o.kw) * double(shapes[i].back()) > double(largest_window))
                throw Error("[" + path_ + "] node '" + g.nodes[i].name + "': a window of " +
                                std::to_string(o.kh) + " x " + std::to_string(o.kw),
                            ErrorKind::model);
            g = replace(std::move(g), i, sum_pool(o, shapes[i].back()));
        }
        check(g);
        return g;
    }

    struct Declared {
        size_t node;
        std::string field;
        std::vector<size_t> shape;
    };
    struct Flat {
        size_t node;
        double start, last;
    };

    const std::string& path_;
    double dt_;
    const std::string& output_;
    Graph graph_;                     // tensors in the file's order until from_file_order
    std::vector<std::string> names_;  // as the file has them
    std::map<std::string, size_t> index_;
    std::vector<const NirNode*> sources_;
    std::vector<bool> inner_;
    std::vector<Declared> declared_;
    std::vector<Flat> flattened_;
    std::set<std::string> sums_;
};

}  // namespace

Graph nir_to_graph(const NirNode& graph, const std::string& path, double dt,
                   const std::string& output) {
    return Builder(graph, path, dt, output).build();
}

}  // namespace nc
