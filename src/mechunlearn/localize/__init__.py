"""Where does a model keep a fact? One localizer a module; `select` turns scores into what an edit may train."""
