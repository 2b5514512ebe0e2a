"""Load stories and measurements: what apiguard costs and what it contains."""
